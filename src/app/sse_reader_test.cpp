// Event streams cut at every byte; token frames and what looks like them.
#include "app/sse_reader.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace llorch {
namespace {

TEST(SseReader, CutsDoNotMatter) {
  const std::string text = "data: {\"a\":1}\n\n: a comment\ndata:{\"b\":\ndata: \"x\\ny\"}\r\n\r\ndata: {\"half\":";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    std::vector<nlohmann::json> events;
    SseReader reader([&](std::string_view data) { events.push_back(parse_event(data)); });
    for (size_t at = 0; at < text.size(); at += piece) reader.push(std::string_view(text).substr(at, piece));
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0]["a"], 1);
    EXPECT_EQ(events[1]["b"], "x\ny");
  }
}

TEST(SseReader, WhatIsNotJsonIsAnError) {
  SseReader reader([](std::string_view data) { parse_event(data); });
  EXPECT_THROW(reader.push("data: [DONE]\n\n"), Error);
  EXPECT_THROW(reader.push("data: oops\n\n"), Error);
}

TEST(SseReader, AFrameWithoutEndIsAnError) {
  SseReader reader([](std::string_view) {});
  const std::string line(1000, 'x');
  EXPECT_THROW(
      {
        for (int i = 0; i < 2000; ++i) reader.push(line);
      },
      Error);
  SseReader lines([](std::string_view) {});
  EXPECT_THROW(
      {
        for (int i = 0; i < 2000; ++i) lines.push("data: " + line + "\n");
      },
      Error);
}

TEST(TokenFrame, IsReadWhateverItsText) {
  for (const std::string text : {"", " there", "\\\"", "\\\",\\\"i\\\":7,\\\"id\\\":8}", "\\\\", "é\\u0001"}) {
    const std::string data = R"({"type":"token","t":")" + text + R"(","i":12,"id":31999})";
    const auto frame = read_token_frame(data);
    ASSERT_TRUE(frame) << data;
    EXPECT_EQ(frame->index, 12u);
    EXPECT_EQ(frame->id, 31999);
    EXPECT_EQ(parse_event(data)["id"], 31999) << "and it is JSON";
  }
}

TEST(TokenFrame, OtherEventsAndOtherFormsAreLeftToTheParser) {
  for (const std::string data : {
           R"({"type":"end","t":"","i":1,"id":2})",
           R"({"type":"token","i":1,"id":2})",
           R"({"type":"token","t":"x","i":1})",
           R"({"type":"token","t":"x","i":1,"id":})",
           R"({"type":"token","t":"x","i":-1,"id":2})",
           R"({"type":"token","t":"x","i":1,"id":2-3})",
           R"({"type":"token","t":"x","i":4294967296,"id":2})",
           R"({"type":"token","t":"x","id":2,"i":1})",
           R"({"type":"token","t":"x","i": 1,"id":2})",
           R"({"type":"token","t":","i":1,"id":2})",
           R"({"type":"token","t":")",
           "",
       })
    EXPECT_FALSE(read_token_frame(data)) << data;
}

}  // namespace
}  // namespace llorch
