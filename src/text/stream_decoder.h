// Text of a stream of token ids, as it becomes certain.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "text/decoder.h"
#include "text/tokenizer.h"

namespace llorch {

// What all push() and the flush() return, one after the other, is what Tokenizer::decode gives for the same ids. Each
// returned string is whole characters. To stream the continuation of a prompt, push the prompt's ids first and drop
// their text: so a leading space is not stripped that stands in the middle of the text.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special), run_(tokenizer_->parts_.decoder) {}

  // May be empty while bytes of a character are missing; with byte fallback, while a run of byte tokens lasts.
  std::string push(int32_t id) {
    std::string out;
    if (const std::string* piece = tokenizer_->visible_piece(id, skip_special_)) run_.push(*piece, out);
    return out;
  }

  // The rest; afterwards a new text begins.
  std::string flush() {
    std::string out;
    run_.finish(out);
    return out;
  }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;  // second owner: a stream may outlive its request's model
  bool skip_special_;
  DecoderRun run_;
};

}  // namespace llorch
