// Bundles: nothing is lost on the way through JSON, redaction holds, and what strangers wrote is refused by name.
#include "trace/bundle_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "format/files_for_test.h"
#include "trace/bundle_for_test.h"

namespace llorch {
namespace {

using nlohmann::json;
using test::some_bundle;
using test::some_origin;
using test::some_record;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string error_of_text(const std::string& text) {
  return error_of([&] { parse_bundle(text, "b.json"); });
}

json good() { return json::parse(to_json(some_bundle(true)).dump()); }

// The error of a bundle in which the value at a JSON pointer is another one.
std::string error_with(const std::string& pointer, const json& value) {
  json changed = good();
  changed[json::json_pointer(pointer)] = value;
  return error_of_text(changed.dump());
}

TEST(BundleJson, EverythingComesBack) {
  for (const bool with_prompts : {true, false}) {
    const Bundle bundle = some_bundle(with_prompts);
    const Bundle read = parse_bundle(to_json(bundle).dump(), "b.json");
    EXPECT_EQ(to_json(read), to_json(bundle));
    EXPECT_EQ(read.record.tokens, with_prompts ? some_record().tokens : std::vector<int32_t>());
    EXPECT_EQ(read.n_generated, 2u);
    EXPECT_EQ(read.record.sampling.temperature, 0.7f) << "every bit";
    EXPECT_EQ(read.record.sampling.seed, UINT64_MAX);
    EXPECT_EQ(read.record.failure->code, ErrorCode::kNumericFault);
    EXPECT_EQ(read.record.failure->step->verb, "embed");
    EXPECT_EQ(read.origin.weights, some_origin().weights);
    EXPECT_EQ(read.origin.kv.dtype, DType::kF32);
    EXPECT_EQ(read.record.last_steps.front().ms, 2.25);
  }
}

TEST(BundleJson, EveryKvTypeComesBack) {
  for (const DType dtype : {DType::kF16, DType::kF32, DType::kQ8_0}) {
    json changed = good();
    changed["run"]["kv_dtype"] = to_string(dtype);
    EXPECT_EQ(parse_bundle(changed.dump(), "b.json").origin.kv.dtype, dtype);
  }
}

TEST(BundleJson, AnEndWithoutAFailureComesBackToo) {
  SequenceRecord record = some_record();
  record.failure.reset();
  for (const FinishReason reason : {FinishReason::kMaxTokens, FinishReason::kEos, FinishReason::kCancelled}) {
    record.finish = reason;
    record.logits_hashes.resize(reason == FinishReason::kEos ? 3 : 2, 12);
    BundleOrigin origin = some_origin();
    origin.model_hash.reset();
    origin.weights.clear();
    origin.no_model_hash = "the file has changed";
    const Bundle read = parse_bundle(to_json(make_bundle(origin, record, "t", true)).dump(), "b.json");
    EXPECT_EQ(read.record.finish, reason);
    EXPECT_FALSE(read.record.failure.has_value());
    EXPECT_FALSE(read.origin.model_hash.has_value());
    EXPECT_EQ(read.origin.no_model_hash, "the file has changed");
  }
}

TEST(BundleJson, ARedactedBundleNamesNoToken) {
  const std::string secret = std::to_string(test::kSecretToken);
  EXPECT_THAT(to_json(some_bundle(true)).dump(), HasSubstr(secret));
  const nlohmann::ordered_json redacted = to_json(some_bundle(false));
  EXPECT_THAT(redacted.dump(), Not(HasSubstr(secret)));
  EXPECT_FALSE(redacted["prompt"].contains("tokens"));
  EXPECT_FALSE(redacted["generated"].contains("tokens"));
  EXPECT_EQ(redacted["prompt"]["count"], 3);
  EXPECT_EQ(some_bundle(false).record.failure->causes, some_record().failure->causes) << "no cause names a token";
}

TEST(BundleJson, WhatSystemsSayIsMadeFitToBeRead) {
  BundleOrigin origin = some_origin();
  origin.device = "two\nlines";
  origin.model_path = "/not/\xff/utf8";
  SequenceRecord record = some_record();
  record.failure->step->verb = "linear";
  record.failure->causes = {"the driver says:\r\nno\x1b[31m"};
  const std::string text = to_json(make_bundle(origin, record, "t", true))
                               .dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const Bundle read = parse_bundle(text, "b.json");
  EXPECT_EQ(read.origin.device, "two lines");
  EXPECT_EQ(read.record.failure->causes.front(), "the driver says:  no [31m");
}

TEST(BundleJson, EachFieldMustBeThereAndNoOther) {
  const json whole = good();
  for (const char* object :
       {"", "/run", "/model", "/sampling", "/prompt", "/generated", "/failure", "/failure/step", "/last_steps/0"}) {
    const json::json_pointer at(object);
    for (const auto& [name, value] : whole[at].items()) {
      json changed = whole;
      changed[at].erase(name);
      EXPECT_THAT(error_of_text(changed.dump()), HasSubstr(name + ": is missing")) << object;
    }
    json changed = whole;
    changed[at]["extra\x01"] = 1;
    EXPECT_THAT(error_of_text(changed.dump()), HasSubstr("extra\\x01: there is no such field")) << object;
  }
}

TEST(BundleJson, ValuesMustFit) {
  const struct {
    const char* pointer;
    json value;
    const char* error;
  } cases[] = {
      {"/llorch_bundle", 3, "b.json: llorch_bundle: expected 2, the version that this llorch reads, got 3"},
      {"/end", "EOS", "b.json: end: expected \"NUMERIC_FAULT\", the code of the failure, got \"EOS\""},
      {"/failure", nullptr, "end: expected \"MAX_TOKENS\", \"EOS\" or \"CANCELLED\" without a failure, got \"NUMER"},
      {"/failure/code", "OOPS", "failure: code: expected the code of an error, got \"OOPS\""},
      {"/failure/position", -1, "failure: position: expected a whole number from 0 to 4294967295, got -1"},
      {"/failure/cause", {"a\nb"}, "cause[0]: expected a text without control characters, got \"a\\x0ab\""},
      {"/run/kv_dtype", "f8", "b.json: run: kv_dtype: expected \"f16\", \"f32\" or \"q8_0\", got \"f8\""},
      {"/run/page_size", 48, "run: page_size: expected 16, 32 or 64, got 48"},
      {"/run/page_size", 1 << 30, "run: page_size: expected a whole number from 16 to 64"},
      {"/run/max_rows", 1u << 30, "run: max_rows: expected a whole number from 1 to 16384, got 1073741824"},
      {"/run/max_prefill_rows", 0, "run: max_prefill_rows: expected a whole number from 1"},
      {"/model/hash", "0123456789ABCDEF", "b.json: model: hash: expected 16 hex digits, got \"0123456789ABCDEF\""},
      {"/model/weights/a", 5, "b.json: model: weights: a: expected 16 hex digits, got 5"},
      {"/model/config", {1}, "b.json: model: config: expected an object, got an array of 1"},
      {"/sampling/temperature", -0.5, "sampling: temperature: expected a number from 0, got -0.5"},
      {"/sampling/seed", 1.5, "sampling: seed: expected a whole number"},
      {"/max_tokens", 1, "max_tokens: expected 2 or more, the tokens that were generated, got 1"},
      {"/eos", {"2"}, "eos[0]: expected a token id from 0 to 2147483647, got \"2\""},
      {"/prompt/tokens", {1, 2}, "b.json: prompt: tokens: expected 3, as count says, got 2"},
      {"/prompt/tokens/2", 99, "that of its tokens, got "},
      {"/prompt/tokens/2", 3000000000, "prompt: tokens[2]: expected a token id"},
      {"/prompt/count", 1e9, "prompt: count: expected a whole number from 1 to 16777216"},
      {"/generated/count", 3, "b.json: generated: tokens: expected 3, as count says, got 2"},
      {"/logits_hashes", {"000000000000000a"}, "logits_hashes: expected 2, one for each row that was sampled, got 1"},
      {"/logits_hashes/1", "xyz", "logits_hashes[1]: expected 16 hex digits, got \"xyz\""},
      {"/redacted", "no", "redacted: expected true or false, got \"no\""},
      {"/redacted", true, "b.json: prompt: tokens: there is no such field"},
      {"/last_steps/0/ms", nullptr, "b.json: last_steps[0]: ms: expected a number from 0, got null"},
  };
  for (const auto& one : cases) EXPECT_THAT(error_with(one.pointer, one.value), HasSubstr(one.error)) << one.pointer;
  EXPECT_THAT(error_of_text("{}"), HasSubstr("this is no bundle of llorch"));
  EXPECT_THAT(error_of_text("[]"), HasSubstr("b.json: expected an object"));
  EXPECT_LT(error_with("/redacted", std::string(1 << 20, 'x')).size(), 200u);
}

// Any changed byte gives a bundle that can be written and read again, or an Error; anything else fails the test.
TEST(BundleJson, ChangedBytesAreErrorsOrBundles) {
  std::mt19937 random(4);
  size_t refused = 0, read = 0;
  for (const bool with_prompts : {true, false}) {
    const std::string text = to_json(some_bundle(with_prompts)).dump();
    ASSERT_EQ(error_of_text(text), "(no error)");
    for (size_t i = 0; i < text.size(); ++i) {
      std::string changed = text;
      changed[i] = static_cast<char>(changed[i] ^ (1 << random() % 8));
      try {
        const Bundle bundle = parse_bundle(changed, "b.json");
        EXPECT_EQ(to_json(parse_bundle(to_json(bundle).dump(), "again")), to_json(bundle));
        ++read;
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), StartsWith("b.json: "));
        EXPECT_LT(std::string(error.what()).size(), 600u);
        ++refused;
      }
    }
    for (size_t n = 0; n < text.size(); n += 7) EXPECT_NE(error_of_text(text.substr(0, n)), "(no error)");
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(read, 100u);
}

// Whole values change places and types, which bytes seldom do.
TEST(BundleJson, ChangedValuesAreErrorsOrBundles) {
  std::mt19937 random(5);
  const json values[] = {nullptr, true, -1, 0, 1, UINT64_MAX, 1e300, -0.0, "", "x", json::array(), json::object(), {1}};
  const json flat = good().flatten();
  size_t refused = 0;
  for (const auto& [pointer, value] : flat.items())
    for (const json& other : values) refused += error_with(pointer, other) != "(no error)" ? 1 : 0;
  EXPECT_GT(refused, flat.size() * 8);
}

}  // namespace
}  // namespace llorch
