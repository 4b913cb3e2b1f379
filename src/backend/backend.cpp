#include "backend/backend.h"

#include <utility>

namespace llorch {

StepError::StepError(StepFailure failure, ErrorCode code)
    : CodedError(code, fmt::format("step {} ({}) failed on {}, {}", failure.step, failure.verb, failure.device,
                                   failure.shapes)),
      failure_(std::move(failure)) {}

namespace {

// "x f32 [5, 2048] -> qkv f32 [5, 2560], weights f16 [2048, 2048] ..."
std::string step_shapes(const Plan& plan, const Op& op, uint32_t rows) {
  const auto slot = [&](SlotId id) {
    return fmt::format("{} f32 [{}, {}]", plan.slot(id).name, rows, plan.slot(id).width);
  };
  std::string text;
  if (const auto in = input_slot(op)) text = slot(*in) + " -> ";
  text += slot(output_slot(op));
  if (const auto* linear = std::get_if<Linear>(&op))
    for (const WeightId id : linear->weights) {
      const Weight& w = plan.weight(id);
      text += fmt::format(", {} {} {}", w.name, to_string(w.dtype), shape_string(w.shape));
    }
  return text;
}

// Of the first weight that a step reads.
std::string step_dtype(const Plan& plan, const Op& op) {
  const auto name = [&](WeightId id) { return std::string(to_string(plan.weight(id).dtype)); };
  if (const auto* embed = std::get_if<Embed>(&op)) return name(embed->table);
  if (const auto* norm = std::get_if<RmsNorm>(&op)) return name(norm->weight);
  if (const auto* linear = std::get_if<Linear>(&op)) return name(linear->weights.front());
  return "f32";
}

}  // namespace

StepFailure describe_step(const Plan& plan, size_t step, uint32_t rows, const std::string& device) {
  const Step& s = plan.steps[step];
  return {s.name, std::string(verb(s.op)), step_shapes(plan, s.op, rows), device, step_dtype(plan, s.op)};
}

void rethrow_as_step_error(const Plan& plan, size_t step, uint32_t rows, const std::string& device) {
  ErrorCode code = ErrorCode::kWorkerFault;
  try {
    throw;
  } catch (const StepError&) {
    throw;
  } catch (const std::exception& error) {
    code = code_of(error, ErrorCode::kInferenceFailed);
  } catch (...) {  // of no type that is known: a bug
  }
  std::throw_with_nested(StepError(describe_step(plan, step, rows, device), code));
}

void check_numerics(const Backend& backend, Numerics numerics) {
  if (numerics == Numerics::kExact) return;
  if (const auto why = backend.why_not_fast()) fail("the backend {} cannot be fast: {}", backend.info().name, *why);
}

void Program::start(const Batch& batch, std::span<const RowSampling> rows) {
  LLORCH_CHECK(started_.size() < max_in_flight(), "{} steps are in flight", started_.size());
  started_.push_back({&batch, rows});
}

std::span<const SampledRow> Program::finish() {
  LLORCH_CHECK(!started_.empty(), "nothing was started");
  const std::span<const RowSampling> rows = started_.front().rows;
  const Batch* started = started_.front().batch;
  started_.pop_front();
  Batch known;  // a copy only where there are tokens to put in
  if (std::any_of(started->tokens.begin(), started->tokens.end(), is_in_flight)) {
    known = *started;
    for (int32_t& token : known.tokens)
      if (is_in_flight(token)) token = std::max(0, sampled_.at(row_in_flight(token)).token);
    started = &known;
  }
  const Batch& batch = *started;
  const size_t vocab = plan().vocab;
  const std::span<const float> logits = run(batch);
  LLORCH_CHECK(rows.size() == batch.logit_rows.size() && logits.size() == rows.size() * vocab,
               "{} logits and {} samplings for {} rows", logits.size(), rows.size(), batch.logit_rows.size());
  if (!sampler_) sampler_ = std::make_unique<Sampler>(plan().vocab);
  sampled_.clear();
  for (size_t i = 0; i < rows.size(); ++i)
    sampled_.push_back(sampler_->sample_row(logits.subspan(i * vocab, vocab), rows[i]));
  return sampled_;
}

void check_kv(const KvShape& kv) {
  const uint32_t size = kv.page_size;
  if (size < 16 || size > KvShape::kMaxPageSize || (size & (size - 1)) != 0)
    fail("KV page size: expected a power of two from 16 to {}, got {}", KvShape::kMaxPageSize, size);
  if (kv.dtype != DType::kF16 && kv.dtype != DType::kF32 && kv.dtype != DType::kQ8_0)
    fail("KV dtype: expected f16, f32 or q8_0, got {}", to_string(kv.dtype));
}

size_t kv_head_bytes(uint32_t head_dim, DType dtype) {
  if (dtype == DType::kQ8_0) return head_dim + size_t{2} * ((head_dim + kKvBlock - 1) / kKvBlock);
  return head_dim * block_bytes(dtype);
}

size_t kv_page_bytes(const Plan& plan, const KvShape& kv) {
  return size_t{2} * plan.n_layers * plan.heads.n_kv_heads * kv.page_size *
         kv_head_bytes(plan.heads.head_dim, kv.dtype);
}

void check_batch(const Batch& batch, const Plan& plan, const CompileOptions& options, size_t n_in_flight) {
  const KvShape& kv = options.kv;
  LLORCH_CHECK(batch.rows() > 0 && batch.rows() <= options.max_rows, "{} rows, at most {}", batch.rows(),
               options.max_rows);
  for (const int32_t token : batch.tokens)
    LLORCH_CHECK(is_in_flight(token) ? row_in_flight(token) < n_in_flight
                                     : token >= 0 && static_cast<uint32_t>(token) < plan.vocab,
                 "token {} of {}, {} in flight", token, plan.vocab, n_in_flight);
  uint32_t next_row = 0;
  for (const Batch::Sequence& s : batch.sequences) {
    LLORCH_CHECK(s.first_row == next_row && s.n_rows > 0, "sequence starts at row {}, expected {}", s.first_row,
                 next_row);
    const uint64_t end = uint64_t{s.first_position} + s.n_rows;
    LLORCH_CHECK(end <= plan.context(), "positions up to {} exceed the context {}", end, plan.context());
    LLORCH_CHECK(end <= uint64_t{s.n_pages} * kv.page_size, "{} positions in {} pages of {}", end, s.n_pages,
                 kv.page_size);
    LLORCH_CHECK(uint64_t{s.first_page} + s.n_pages <= batch.pages.size(), "page table [{}, +{}) of {}", s.first_page,
                 s.n_pages, batch.pages.size());
    next_row += s.n_rows;
  }
  LLORCH_CHECK(next_row == batch.rows(), "sequences cover {} of {} rows", next_row, batch.rows());
  for (const uint32_t page : batch.pages) LLORCH_CHECK(page < kv.n_pages, "page {} of {}", page, kv.n_pages);
  LLORCH_CHECK(batch.logit_rows.size() <= options.max_logit_rows, "{} logit rows, at most {}", batch.logit_rows.size(),
               options.max_logit_rows);
  for (size_t i = 0; i < batch.logit_rows.size(); ++i)
    LLORCH_CHECK(batch.logit_rows[i] < batch.rows() && (i == 0 || batch.logit_rows[i - 1] < batch.logit_rows[i]),
                 "logit row {} of {}", batch.logit_rows[i], batch.rows());
}

}  // namespace llorch
