// The steps of a decoder, each on a stream of tokens.
#include "text/decoder.h"

#include <charconv>
#include <optional>

#include "base/error.h"
#include "text/byte_level.h"

namespace llorch {
namespace {

bool fuses(const Decoder::Step& step) {
  return std::holds_alternative<Decoder::Fuse>(step) || std::holds_alternative<Decoder::ByteLevel>(step);
}

// The byte of a token <0xNN>.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  const auto parsed = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (parsed.ec != std::errc() || parsed.ptr != token.data() + 5) return std::nullopt;
  return static_cast<char>(static_cast<unsigned char>(value));
}

// Takes the character off the start of text while it stands there, at most `limit` times; how often it did.
uint64_t strip_start(std::string_view& text, std::string_view character, uint64_t limit) {
  uint64_t count = 0;
  for (; count < limit && text.starts_with(character); ++count) text.remove_prefix(character.size());
  return count;
}

void strip_end(std::string_view& text, std::string_view character, uint64_t limit) {
  for (uint64_t count = 0; count < limit && text.ends_with(character); ++count) text.remove_suffix(character.size());
}

}  // namespace

Decoder::Decoder(std::vector<Step> steps) : steps_(std::move(steps)) {
  fused_by_ = 0;
  while (fused_by_ < steps_.size() && !fuses(steps_[fused_by_])) ++fused_by_;
  for (size_t i = fused_by_ + 1; i < steps_.size(); ++i)
    if (!std::holds_alternative<Fuse>(steps_[i]) && !std::holds_alternative<Strip>(steps_[i]))
      fail("after Fuse or ByteLevel only Fuse and Strip are supported, step {} is another", i);
}

void DecoderRun::feed(size_t step, std::string_view token, std::string& out) {
  if (step == states_.size()) {
    out.append(token);
    return;
  }
  std::visit([&](const auto& kind) { take(kind, step, token, out); }, decoder_->steps()[step]);
}

void DecoderRun::take(const Decoder::Replace& replace, size_t step, std::string_view token, std::string& out) {
  feed(step + 1, replace.pattern.replace_all(token, replace.content), out);
}

void DecoderRun::take(const Decoder::ByteFallback&, size_t step, std::string_view token, std::string& out) {
  if (const auto byte = fallback_byte(token)) {
    states_[step].held.push_back(*byte);
    return;
  }
  end_byte_run(step, out);
  feed(step + 1, token, out);
}

void DecoderRun::end_byte_run(size_t step, std::string& out) {
  std::string run = std::move(states_[step].held);
  states_[step].held.clear();
  if (run.empty()) return;
  if (is_valid_utf8(run)) {
    feed(step + 1, run, out);
  } else {
    for (size_t i = 0; i < run.size(); ++i) feed(step + 1, kReplacementCharacter, out);
  }
}

void DecoderRun::take(const Decoder::Fuse&, size_t step, std::string_view token, std::string& out) {
  feed(step + 1, token, out);
}

void DecoderRun::take(const Decoder::Strip& strip, size_t step, std::string_view token, std::string& out) {
  if (!decoder_->is_fused(step)) {
    strip_start(token, strip.content, strip.start);
    strip_end(token, strip.content, strip.stop);
    feed(step + 1, token, out);
    return;
  }
  State& state = states_[step];
  if (state.seen < strip.start) {
    state.seen += strip_start(token, strip.content, strip.start - state.seen);
    if (!token.empty()) state.seen = strip.start;  // another character came: the start is over
  }
  if (token.empty()) return;
  const std::string text = state.held.append(token);
  std::string_view certain = text;
  strip_end(certain, strip.content, strip.stop);
  state.held = text.substr(certain.size());
  if (!certain.empty()) feed(step + 1, certain, out);
}

void DecoderRun::take(const Decoder::Metaspace& metaspace, size_t step, std::string_view token, std::string& out) {
  const bool first = states_[step].seen++ == 0;
  const std::string_view space = first && metaspace.drop_first ? "" : " ";
  feed(step + 1, Pattern(metaspace.replacement).replace_all(token, space), out);
}

void DecoderRun::take(const Decoder::ByteLevel&, size_t step, std::string_view token, std::string& out) {
  const auto bytes = from_byte_alphabet(token);
  std::string text;
  states_[step].repair.push(bytes ? std::string_view(*bytes) : token, text);
  if (!text.empty()) feed(step + 1, text, out);
}

void DecoderRun::take(const Decoder::Join& join, size_t step, std::string_view token, std::string& out) {
  if (states_[step].seen++ != 0) feed(step + 1, join.separator, out);
  feed(step + 1, token, out);
}

void DecoderRun::finish(std::string& out) {
  for (size_t step = 0; step < states_.size(); ++step) {
    const Decoder::Step& kind = decoder_->steps()[step];
    if (std::holds_alternative<Decoder::ByteFallback>(kind)) end_byte_run(step, out);
    if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
      std::string text;
      states_[step].repair.finish(text);
      feed(step + 1, text, out);
    }
    states_[step] = State{};  // what Strip still holds is what it takes off
  }
}

}  // namespace llorch
