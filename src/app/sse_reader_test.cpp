// Event streams cut at every byte.
#include "app/sse_reader.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace llorch {
namespace {

TEST(SseReader, CutsDoNotMatter) {
  const std::string text = "data: {\"a\":1}\n\n: a comment\ndata:{\"b\":\"x\\ny\"}\r\n\r\ndata: {\"half\":";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    std::vector<nlohmann::json> events;
    SseReader reader([&](const nlohmann::json& event) { events.push_back(event); });
    for (size_t at = 0; at < text.size(); at += piece) reader.push(text.substr(at, piece));
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0]["a"], 1);
    EXPECT_EQ(events[1]["b"], "x\ny");
  }
}

TEST(SseReader, WhatIsNotJsonIsAnError) {
  SseReader reader([](const nlohmann::json&) {});
  EXPECT_THROW(reader.push("data: [DONE]\n\n"), Error);
  EXPECT_THROW(reader.push("data: oops\n\n"), Error);
}

}  // namespace
}  // namespace llorch
