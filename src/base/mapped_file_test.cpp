#include "base/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"

namespace llorch {
namespace {

class MappedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "llorch_mapped_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path write(const std::string& content) {
    const auto path = directory_ / "file";
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  std::filesystem::path directory_;
};

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string error_of(const std::filesystem::path& path) {
  try {
    MappedFile file(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_F(MappedFileTest, HoldsTheBytesOfTheFileAlsoAfterAMove) {
  MappedFile file(write("abc"));
  const std::byte* address = file.bytes().data();
  MappedFile moved(std::move(file));
  EXPECT_EQ(text(moved.bytes()), "abc");
  EXPECT_EQ(moved.bytes().data(), address);
  EXPECT_TRUE(file.bytes().empty());  // NOLINT(bugprone-use-after-move): the moved-from state is the subject
}

TEST_F(MappedFileTest, ReleasedPagesCanBeReadAgain) {
  std::string content(3 * 65536 + 17, 'x');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 >> 4);
  const MappedFile file(write(content));
  file.prefetch(file.bytes());
  EXPECT_EQ(text(file.bytes()), content);
  file.release(file.bytes().subspan(1, 100000));
  file.release(file.bytes().subspan(content.size()));
  EXPECT_EQ(text(file.bytes()), content);
}

TEST_F(MappedFileTest, RefusesToAdviseOutsideTheMapping) {
  const MappedFile file(write("abc"));
  const std::byte other[4] = {};
  EXPECT_THROW(file.release(other), BugError);
  EXPECT_FALSE(file.contains({file.bytes().data() + 1, 3}));
  EXPECT_TRUE(file.contains({file.bytes().data() + 1, 2}));
}

TEST_F(MappedFileTest, MapsAnEmptyFileToAnEmptySpan) { EXPECT_TRUE(MappedFile(write("")).bytes().empty()); }

TEST_F(MappedFileTest, ErrorsNameTheFile) {
  const auto absent = directory_ / "absent";
  EXPECT_EQ(error_of(absent), absent.string() + ": cannot open: No such file or directory");
  EXPECT_EQ(error_of(directory_), directory_.string() + ": expected a regular file");
  const auto pipe = directory_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(error_of(pipe), pipe.string() + ": expected a regular file");
}

}  // namespace
}  // namespace llorch
