#include "format/checkpoint_hash.h"

#include <gtest/gtest.h>

#include <cmath>

#include "format/files_for_test.h"
#include "format/safetensors_writer.h"

namespace llorch {
namespace {

struct Named {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

uint64_t hash_of(const std::vector<Named>& named) {
  const TempDirectory directory;
  std::vector<Tensor> tensors;
  for (const Named& n : named) tensors.push_back({n.name, DType::kF32, n.shape, std::as_bytes(std::span(n.values))});
  write_safetensors(directory.path() / "t.safetensors", tensors, {{"made", std::to_string(named.size())}});
  return hash_tensors(Checkpoint::open(directory.path() / "t.safetensors"));
}

TEST(CheckpointHash, DependsOnNamesShapesAndBytesAndNotOnTheirOrder) {
  const Named a{"a", {2, 3}, {1, 2, 3, 4, 5, 6}}, b{"b", {1}, {7}};
  const uint64_t hash = hash_of({a, b});
  EXPECT_EQ(hash_of({b, a}), hash);
  EXPECT_NE(hash_of({a}), hash);
  EXPECT_NE(hash_of({{"c", a.shape, a.values}, b}), hash);
  EXPECT_NE(hash_of({{"a", {3, 2}, a.values}, b}), hash);
  EXPECT_NE(hash_of({{"a", a.shape, {1, 2, 3, 4, 5, std::nextafter(6.0f, 7.0f)}}, b}), hash);
}

// 40 MB are hashed in pieces: the last value counts.
TEST(CheckpointHash, LargeTensorsCountToTheirEnd) {
  std::vector<float> values(10 << 20, 1.0f);
  const int64_t n = static_cast<int64_t>(values.size());
  const uint64_t hash = hash_of({{"t", {n}, values}});
  values.back() = 2.0f;
  EXPECT_NE(hash_of({{"t", {n}, values}}), hash);
}

TEST(CheckpointHash, EachTensorHasItsOwn) {
  const TempDirectory directory;
  const auto path = directory.path() / "t.safetensors";
  const auto write = [&](const std::vector<float>& a, const std::vector<float>& b) {
    const auto n = static_cast<int64_t>(a.size());
    write_safetensors(path,
                      {{Tensor{"a", DType::kF32, {n}, std::as_bytes(std::span(a))},
                        Tensor{"b", DType::kF32, {n}, std::as_bytes(std::span(b))}}},
                      {});
    return *hash_each_tensor(Checkpoint::open(path), [] { return true; });
  };
  const TensorHashes before = write({1, 2}, {1, 2}), after = write({1, 2}, {1, 3});
  EXPECT_EQ(before.all, hash_of({{"a", {2}, {1, 2}}, {"b", {2}, {1, 2}}}));
  EXPECT_NE(before.all, after.all);
  ASSERT_EQ(before.each.size(), 2u);
  EXPECT_EQ(before.each.at("a"), after.each.at("a"));
  EXPECT_NE(before.each.at("b"), after.each.at("b"));
  EXPECT_EQ(before.each.at("a"), before.each.at("b")) << "the name is the key, and not in the hash";
  EXPECT_FALSE(hash_each_tensor(Checkpoint::open(path), [] { return false; }).has_value());
}

}  // namespace
}  // namespace llorch
