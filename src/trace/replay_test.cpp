// Recorded requests run again: on backends that are right, on one that is not, and from bundles that were changed.
#include "trace/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "engine/engine.h"
#include "plan/hash.h"
#include "trace/bundle_for_test.h"
#include "trace/diff_text.h"
#include "trace/faulty_backend_for_test.h"
#include "trace/lockstep.h"
#include "trace/tiny_model_for_test.h"

namespace llorch {
namespace {

using test::Fault;
using test::FaultyBackend;
using test::TinyModel;
using testing::HasSubstr;
using testing::StartsWith;

Request request_of(std::vector<int32_t> prompt, uint32_t max_tokens) {
  Request request;
  request.tokens = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.seed = 11;
  request.record = true;
  return request;
}

class Replay : public testing::Test {
 protected:
  // What a worker records of the last of these requests, which run together.
  Bundle record(Backend& backend, const std::vector<Request>& requests, bool with_prompts = true,
                uint32_t n_pages = 16) {
    CompileOptions compile{.kv = {.n_pages = n_pages, .page_size = 16}, .max_rows = 32, .max_logit_rows = 4};
    std::map<RequestId, SequenceRecord> records;
    EngineOptions options;
    options.max_prefill_rows = 7;
    options.on_record = [&records](const SequenceRecord& ended) { records[ended.id] = ended; };
    RequestId last = 0;
    {
      Engine engine(model_.compile(backend, compile), options);
      std::vector<std::promise<void>> ends(requests.size());
      for (size_t i = 0; i < requests.size(); ++i)
        last = engine.submit(requests[i], [&end = ends[i]](const Event& event) {
          if (std::holds_alternative<FinishEvent>(event) || std::holds_alternative<FailEvent>(event)) end.set_value();
        });
      for (std::promise<void>& end : ends) end.get_future().wait();
      preemptions_ = engine.stats().preemptions;
    }
    BundleOrigin origin = test::some_origin();
    origin.kv = compile.kv;
    origin.max_rows = compile.max_rows;
    origin.max_step_rows = 32;
    origin.max_prefill_rows = options.max_prefill_rows;
    return make_bundle(origin, records.at(last), "2026-01-01T00:00:00.000Z", with_prompts);
  }

  SequenceRecord run(Backend& backend, const Bundle& bundle) {
    return replay(model_.compile(backend, replay_options(bundle)), bundle, prompt_, "toy");
  }
  std::string verdict(Backend& backend, const Bundle& bundle) {
    return verdict_text(bundle, first_difference(bundle, run(backend, bundle)));
  }

  const TinyModel model_;
  const std::vector<int32_t> prompt_ = {9, 40, 41, 7, 13, 22, 25, 60, 61, 5};
  const std::unique_ptr<Backend> cpu_ = make_cpu_backend({2, ""}), reference_ = make_reference_backend();
  uint64_t preemptions_ = 0;
};

TEST_F(Replay, IsTheSameBitForBitOnEveryBackend) {
  const Bundle bundle = record(*cpu_, {request_of(prompt_, 20)});
  ASSERT_EQ(bundle.n_generated, 20u);
  EXPECT_EQ(verdict(*cpu_, bundle), "reproduced: 20 tokens, the same logits bit for bit");
  EXPECT_EQ(verdict(*reference_, bundle), "reproduced: 20 tokens, the same logits bit for bit");
}

TEST_F(Replay, CompanyAndPreemptionsLeaveNoTrace) {
  std::vector<Request> requests;
  for (int32_t i = 0; i < 3; ++i) requests.push_back(request_of({i, 3, 4, 5, 6}, 40));
  requests.push_back(request_of(prompt_, 30));
  const Bundle bundle = record(*cpu_, requests, true, 7);
  EXPECT_GT(preemptions_, 0u);
  EXPECT_EQ(verdict(*cpu_, bundle), "reproduced: 30 tokens, the same logits bit for bit");
}

TEST_F(Replay, EndsAreThoseOfTheRun) {
  const Bundle whole = record(*cpu_, {request_of(prompt_, 8)});
  Request with_eos = request_of(prompt_, 8);
  with_eos.eos = {whole.record.tokens[prompt_.size() + 5]};
  const Bundle ended = record(*cpu_, {with_eos});
  ASSERT_EQ(ended.record.finish, FinishReason::kEos);
  EXPECT_THAT(verdict(*reference_, ended), HasSubstr("the same logits bit for bit"));

  Bundle changed = ended;
  changed.record.eos = {0};
  EXPECT_THAT(verdict(*cpu_, changed), HasSubstr("recorded is EOS, got token"));

  Bundle cancelled = whole;
  cancelled.record.finish = FinishReason::kCancelled;
  EXPECT_EQ(verdict(*cpu_, cancelled),
            "reproduced: 8 tokens, the same logits bit for bit; its end (CANCELLED) came from outside and is not "
            "replayed");
}

TEST_F(Replay, ARedactedBundleIsReplayedWithItsPrompt) {
  Bundle bundle = record(*cpu_, {request_of(prompt_, 6)}, false);
  EXPECT_TRUE(bundle.record.tokens.empty());
  EXPECT_EQ(verdict(*cpu_, bundle), "reproduced: 6 tokens, the same logits bit for bit");
  ++bundle.generated_digest;  // the last token has no row after it
  EXPECT_THAT(verdict(*cpu_, bundle), HasSubstr("not reproduced: 5 tokens are the same, then the logits at position 14 "
                                                "are too, but recorded is tokens of digest"));
}

TEST_F(Replay, AChangedHashOrTokenIsNamed) {
  const Bundle bundle = record(*cpu_, {request_of(prompt_, 6)});
  Bundle hash = bundle;
  hash.record.logits_hashes[2] ^= 1;
  EXPECT_EQ(verdict(*cpu_, hash),
            fmt::format("not reproduced: 2 tokens are the same, then the logits at position 11 differ: recorded hash "
                        "{:016x}, got {:016x}; what follows agrees again, so the run is the same and the bundle was "
                        "changed here",
                        hash.record.logits_hashes[2], bundle.record.logits_hashes[2]));
  Bundle last = bundle;
  last.record.logits_hashes.back() ^= 1;
  EXPECT_THAT(verdict(*cpu_, last), testing::Not(HasSubstr("agrees again")));

  Bundle token = bundle;
  int32_t& id = token.record.tokens[prompt_.size() + 3];
  const int32_t was = std::exchange(id, id + 1);
  EXPECT_EQ(verdict(*cpu_, token),
            fmt::format("not reproduced: 3 tokens are the same, then the logits at position 12 are too, but recorded "
                        "is token {}, got token {}; what follows agrees again, so the run is the same and the bundle "
                        "was changed here",
                        was + 1, was));

  Bundle seed = bundle;
  ++seed.record.sampling.seed;
  EXPECT_THAT(verdict(*cpu_, seed), StartsWith("not reproduced: "));
}

TEST_F(Replay, ABackendThatIsWrongDiffersAtAStepThatIsNamed) {
  const Bundle bundle = record(*cpu_, {request_of(prompt_, 6)});
  FaultyBackend faulty(make_cpu_backend({1, ""}), {.weight = [](const Weight& weight, std::vector<std::byte>& bytes) {
                         if (weight.name == "layers.1.attn_output.weight") bytes[65] = std::byte{0x3f};
                       }});
  const auto difference = first_difference(bundle, run(faulty, bundle));
  ASSERT_TRUE(difference.has_value());
  EXPECT_EQ(difference->what, ReplayDifference::What::kLogits);
  EXPECT_EQ(difference->index, 0u);
  EXPECT_EQ(difference->position, prompt_.size() - 1);
  EXPECT_FALSE(difference->record_changed);

  SequenceRun forced;
  forced.tokens = prompt_;
  forced.n_prompt = static_cast<uint32_t>(prompt_.size());
  const auto a = model_.compile(faulty, replay_options(bundle)), b = model_.compile(*cpu_, replay_options(bundle));
  const auto step = first_difference(*a, *b, forced);
  ASSERT_TRUE(step.has_value());
  EXPECT_THAT(difference_text(*step), StartsWith("layers.1.attn_out (layer 1, linear, bf16 [10, 64]): position 0"));
  const auto c = model_.compile(*reference_, replay_options(bundle));
  EXPECT_FALSE(first_difference(*b, *c, forced).has_value());
}

// Decoded rows are wrong from some position on: the batches before are equal, and only then a step is named.
TEST_F(Replay, TheBatchOfTheStepIsTheFirstThatDiffers) {
  FaultyBackend faulty(make_cpu_backend({1, ""}), {.batch = [](Batch& batch, const KvShape&) {
                         if (batch.rows() == 1 && batch.sequences[0].first_position > 70)
                           batch.tokens[0] = 1 - batch.tokens[0] % 2;
                       }});
  SequenceRun forced = test::tiny_run(80, 12);
  const CompileOptions options = TinyModel::tiny_options();
  const auto a = model_.compile(faulty, options), b = model_.compile(*reference_, options);
  const auto step = first_difference(*a, *b, forced);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->step, "embed");
  EXPECT_EQ(step->first_position, 71u);
}

FaultyBackend with_nan_at_token(int32_t token) {
  return {make_cpu_backend({1, ""}), {.weight = [token](const Weight& weight, std::vector<std::byte>& bytes) {
            if (weight.name != "token_embd.weight") return;
            const size_t row = static_cast<size_t>(token) * static_cast<size_t>(weight.shape.back()) * 2;
            bytes[row] = std::byte{0xc0};
            bytes[row + 1] = std::byte{0x7f};
          }}};
}

TEST_F(Replay, AFaultIsTheSameFaultAgain) {
  FaultyBackend sick = with_nan_at_token(61);
  const Bundle bundle = record(sick, {request_of(prompt_, 6)});
  ASSERT_TRUE(bundle.record.failure.has_value());
  EXPECT_EQ(verdict(sick, bundle), "reproduced: before any token NUMERIC_FAULT in embed at position 8");
  EXPECT_EQ(verdict(*cpu_, bundle).substr(0, 104),
            "not reproduced: 0 tokens are the same, then at position 9 recorded is NUMERIC_FAULT in embed at position");
  Bundle elsewhere = bundle;
  elsewhere.record.failure->position = 7;
  EXPECT_THAT(verdict(sick, elsewhere), HasSubstr("recorded is NUMERIC_FAULT in embed at position 7, got NUMERIC_FAULT "
                                                  "in embed at position 8"));
}

TEST_F(Replay, AFaultThatWasNotRecordedIsADifference) {
  const Bundle bundle = record(*cpu_, {request_of(prompt_, 6)});
  FaultyBackend sick = with_nan_at_token(61);
  EXPECT_THAT(verdict(sick, bundle), HasSubstr("0 tokens are the same, then at position 9 recorded is token "));
  EXPECT_THAT(verdict(sick, bundle), HasSubstr(", got NUMERIC_FAULT in embed at position 8"));
}

// A step that fails in the middle: tokens, then the same code and step. In the prompt its position follows from chunks.
TEST_F(Replay, AStepThatIsRefusedIsTheSameStepAgain) {
  FaultyBackend refusing(make_cpu_backend({1, ""}), {.batch = [](Batch& batch, const KvShape&) {
                           const Batch::Sequence& s = batch.sequences[0];
                           if (s.first_position + s.n_rows > 12)
                             throw StepError({"layers.0.qkv", "linear", "[1, 64]", "toy"});
                         }});
  const Bundle bundle = record(refusing, {request_of(prompt_, 6)});
  EXPECT_EQ(bundle.n_generated, 3u);
  EXPECT_EQ(verdict(refusing, bundle),
            "reproduced: 3 tokens, the same logits bit for bit, then INFERENCE_FAILED in layers.0.qkv at position 12");
  EXPECT_THAT(verdict(*reference_, bundle), HasSubstr("3 tokens are the same, then at position 12 recorded is "
                                                      "INFERENCE_FAILED in layers.0.qkv at position 12, got token"));
}

TEST_F(Replay, WhatTheProgramCannotRunIsRefused) {
  Bundle bundle = record(*cpu_, {request_of(prompt_, 6)});
  const auto refused = [&](const std::vector<int32_t>& prompt) {
    try {
      replay(model_.compile(*cpu_, replay_options(bundle)), bundle, prompt, "toy");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(refused({1, 1 << 30}), HasSubstr("token id 1073741824"));
  bundle.record.sampling.top_p = 3.0f;
  EXPECT_THAT(refused(prompt_), HasSubstr("top_p 3 is not within 0..1"));
}

}  // namespace
}  // namespace llorch
