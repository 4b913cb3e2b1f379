// Bundles on disk: private, whole or not there, and in a folder that stays small.
#include "trace/bundle_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/files_for_test.h"
#include "trace/bundle_for_test.h"
#include "trace/bundle_json.h"

namespace llorch {
namespace {

using test::names_in;
using test::some_bundle;
using test::some_origin;
using test::some_record;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

unsigned mode_of(const std::filesystem::path& path) {
  struct stat status = {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 0777;
}

Bundle bundle_at(const std::string& time, RequestId id, bool failed = true) {
  SequenceRecord record = some_record();
  record.id = id;
  if (!failed) {
    record.failure.reset();
    record.finish = FinishReason::kMaxTokens;
  }
  return make_bundle(some_origin(), record, time, true);
}

TEST(BundleFile, IsReadAsItWasWrittenAndIsItsOwnersOnly) {
  const TempDirectory folder;
  const auto path = folder.path() / "b.json";
  std::ofstream(path) << "what stood there before";
  write_bundle(path, some_bundle(true));
  EXPECT_EQ(to_json(read_bundle(path)), to_json(some_bundle(true)));
  EXPECT_EQ(mode_of(path), 0600u);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("b.json")) << "nothing temporary is left";
}

TEST(BundleFile, WhatCannotBeWrittenLeavesNothing) {
  const TempDirectory folder;
  EXPECT_THAT(error_of([&] { write_bundle(folder.path() / "absent" / "b.json", some_bundle(true)); }),
              HasSubstr("cannot be made"));
  std::filesystem::create_directory(folder.path() / "b.json");
  EXPECT_THAT(error_of([&] { write_bundle(folder.path() / "b.json", some_bundle(true)); }),
              HasSubstr("b.json: cannot be written"));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("b.json"));
}

TEST(BundleFile, IsNeverLargerThanALimit) {
  const TempDirectory folder;
  const auto path = folder.path() / "b.json";
  std::ofstream(path) << "{}";
  std::filesystem::resize_file(path, kMaxBundleBytes + 1);  // sparse
  EXPECT_EQ(error_of([&] { read_bundle(path); }),
            path.string() + ": expected a bundle of 16777216 bytes at most, got 16777217");
  EXPECT_THAT(error_of([&] { read_bundle(folder.path() / "c.json"); }), HasSubstr("cannot open"));
}

TEST(BundleFolder, IsMadeForItsOwnerAndNamesBundlesByTimeAndRequest) {
  const TempDirectory parent;
  const BundleFolder folder(parent.path() / "a" / "b", {});
  EXPECT_EQ(mode_of(folder.path()), 0700u);
  const auto path = folder.add(bundle_at("2026-01-02T03:04:05.678Z", 17));
  EXPECT_EQ(path.filename().string(), fmt::format("failed-20260102T030405.678Z-{}-17.json", ::getpid()));
  EXPECT_EQ(read_bundle(path).record.id, 17u);
  const BundleFolder again(folder.path(), {});
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(BundleFolder, RefusesWhatIsNoFolderOrTakesNothing) {
  const TempDirectory parent;
  std::ofstream(parent.path() / "file") << "x";
  EXPECT_THAT(error_of([&] { BundleFolder(parent.path() / "file", {}); }), HasSubstr("expected a folder"));
  EXPECT_THAT(error_of([&] { BundleFolder("/proc/llorch", {}); }), HasSubstr("/proc/llorch: cannot be made"));
}

TEST(BundleFolder, KeepsTheNewestOfEachKindAndWhatIsNotItsOwn) {
  const TempDirectory parent;
  const BundleFolder folder(parent.path(), {.n_bundles = 2});
  const auto failed = folder.add(bundle_at("2026-01-01T00:00:00.000Z", 1));
  for (RequestId id = 2; id <= 9; ++id) folder.add(bundle_at(fmt::format("2026-01-0{}T00:00:00.000Z", id), id, false));
  const auto is_there = [&](RequestId id) {
    return std::filesystem::exists(parent.path() /
                                   fmt::format("asked-2026010{}T000000.000Z-{}-{}.json", id, ::getpid(), id));
  };
  EXPECT_TRUE(std::filesystem::exists(failed)) << "asking drives no failure out";
  EXPECT_FALSE(is_there(7));
  EXPECT_TRUE(is_there(8) && is_there(9));
  std::filesystem::rename(failed, parent.path() / "failed-kept.json");
  for (RequestId id = 1; id <= 3; ++id) folder.add(bundle_at("2026-02-01T00:00:00.000Z", id));
  EXPECT_THAT(names_in(parent.path()), testing::Contains("failed-kept.json"));
  EXPECT_EQ(names_in(parent.path()).size(), 5u);
}

TEST(BundleFolder, IsBoundedInBytesButKeepsTheNewest) {
  const TempDirectory parent;
  const BundleFolder small(parent.path(), {.bytes = 1});
  small.add(bundle_at("2026-01-01T00:00:00.000Z", 1));
  const auto last = small.add(bundle_at("2026-01-02T00:00:00.000Z", 2));
  EXPECT_THAT(names_in(parent.path()), ElementsAre(last.filename().string()));
}

TEST(BundleFolder, SweepsWhatADeadProcessLeftHalfWritten) {
  const TempDirectory parent;
  const auto stale = parent.path() / ".failed-20260101T000000.000Z-1-1.json.1.tmp";
  const auto fresh = parent.path() / ".failed-20260101T000000.000Z-2-2.json.2.tmp";
  std::ofstream(stale) << "{";
  std::ofstream(fresh) << "{";
  std::filesystem::last_write_time(stale, std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  BundleFolder(parent.path(), {}).add(some_bundle(true));
  EXPECT_FALSE(std::filesystem::exists(stale));
  EXPECT_TRUE(std::filesystem::exists(fresh)) << "its writer may live";
}

}  // namespace
}  // namespace llorch
