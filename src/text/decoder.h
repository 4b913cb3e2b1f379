// Decoders: from token pieces back to text, a piece at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"
#include "text/utf8.h"

namespace llorch {

// The steps of a decoder, as Hugging Face's tokenizers define them: each takes a list of tokens and gives one on. Fuse
// and ByteLevel make a single token of all; after them only Fuse and Strip make sense of a token that is still growing.
class Decoder {
 public:
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct ByteFallback {};  // a run of <0x00>..<0xFF> becomes its bytes if they are valid UTF-8, else a U+FFFD for each
  struct Fuse {};
  struct Strip {
    std::string content;  // one character
    size_t start, stop;   // at most so many are taken off each end
  };
  struct Metaspace {
    std::string replacement;  // one character, becomes a space
    bool drop_first;          // those of the first token vanish
  };
  struct ByteLevel {};  // from the byte alphabet; invalid UTF-8 becomes U+FFFD
  struct Join {         // what happens where a tokenizer has no decoder
    std::string separator;
  };
  using Step = std::variant<Replace, ByteFallback, Fuse, Strip, Metaspace, ByteLevel, Join>;

  // Throws Error if a step after Fuse or ByteLevel cannot work on a growing token.
  explicit Decoder(std::vector<Step> steps);

  const std::vector<Step>& steps() const { return steps_; }
  // True if the step gets one token, in parts, instead of many.
  bool is_fused(size_t step) const { return step > fused_by_; }

 private:
  std::vector<Step> steps_;
  size_t fused_by_;  // index of the first step that makes one token of all; steps_.size() if none does
};

// One run of a decoder. Memory and time for a token do not grow with the text, but for runs of byte tokens: whether
// their bytes are text is known when the run ends. The decoder must outlive it.
class DecoderRun {
 public:
  explicit DecoderRun(const Decoder& decoder) : decoder_(&decoder), states_(decoder.steps().size()) {}

  // Appends to out what is certain now, whole characters only.
  void push(std::string_view piece, std::string& out) { feed(0, piece, out); }
  void finish(std::string& out);  // the rest; afterwards a new text begins

 private:
  struct State {
    std::string held;   // bytes of a run, or text that may yet be stripped
    uint64_t seen = 0;  // tokens, or characters looked at for stripping
    Utf8Repair repair;
  };
  void feed(size_t step, std::string_view token, std::string& out);

  void take(const Decoder::Replace&, size_t step, std::string_view token, std::string& out);
  void take(const Decoder::ByteFallback&, size_t step, std::string_view token, std::string& out);
  void take(const Decoder::Fuse&, size_t step, std::string_view token, std::string& out);
  void take(const Decoder::Strip&, size_t step, std::string_view token, std::string& out);
  void take(const Decoder::Metaspace&, size_t step, std::string_view token, std::string& out);
  void take(const Decoder::ByteLevel&, size_t step, std::string_view token, std::string& out);
  void take(const Decoder::Join&, size_t step, std::string_view token, std::string& out);

  void end_byte_run(size_t step, std::string& out);

  const Decoder* decoder_;
  std::vector<State> states_;
};

}  // namespace llorch
