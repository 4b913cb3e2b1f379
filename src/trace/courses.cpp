#include "trace/courses.h"

#include <algorithm>
#include <numeric>

namespace llorch {

CourseTokens course_tokens(const std::vector<int32_t>& given, uint32_t n, uint32_t vocab) {
  CourseTokens tokens;
  tokens.watched.assign(given.begin(), given.begin() + std::min<ptrdiff_t>(n, static_cast<ptrdiff_t>(given.size())));
  if (given.empty()) {  // even ids, spread over the vocabulary, none twice; the other sequence has the odd ones
    const uint32_t half = std::max(1u, vocab / 2);
    uint32_t stride = std::max(1u, half * 5 / 13);
    while (std::gcd(stride, half) != 1) ++stride;
    for (uint32_t i = 0; i < n; ++i)
      tokens.watched.push_back(static_cast<int32_t>((uint64_t{i} * stride + half / 3) % half * 2));
  }
  for (const int32_t token : tokens.watched)
    tokens.other.push_back(static_cast<int32_t>((static_cast<uint32_t>(token) + 1) % vocab));
  return tokens;
}

namespace {

uint32_t divide_up(uint32_t n, uint32_t by) { return (n + by - 1) / by; }

enum class Who : uint8_t { kWatched, kOther };
enum class Logits : uint8_t { kAllRows, kLastRow };

// Writes a course: whose rows come next, and how many. There are pages for both sequences and no more.
class CourseWriter {
 public:
  CourseWriter(const CourseTokens& tokens, uint32_t page_size) : tokens_(tokens) {
    course_.page_size = page_size;
    free_pages_.resize(2 * size_t{divide_up(length(), page_size)});
    std::iota(free_pages_.rbegin(), free_pages_.rend(), 0u);  // taken from the end
  }

  uint32_t length() const { return static_cast<uint32_t>(tokens_.watched.size()); }
  uint32_t left() const { return length() - watched_.done; }
  Course take() && { return std::move(course_); }
  void show_steps() { course_.shows_steps = true; }

  // A batch of rows of one sequence, or of both in the given order. Rows beyond the end of a sequence are left out.
  void batch(const std::vector<std::pair<Who, uint32_t>>& rows, Logits logits = Logits::kAllRows) {
    Course::Stop stop;
    for (const auto& [who, n] : rows) add(who, n, logits, stop);
    if (stop.batch.rows() > 0) course_.stops.push_back(std::move(stop));
  }
  void watched(uint32_t n, Logits logits = Logits::kAllRows) { batch({{Who::kWatched, n}}, logits); }
  void decode(uint32_t n) {
    for (; n > 0; --n) watched(1);
  }

  // The other sequence fills every page and ends; then the pages are given out in another order.
  void use_and_scatter_pages() {
    const auto n_pages = static_cast<uint32_t>(free_pages_.size());
    for (int half = 0; half < 2; ++half) {
      batch({{Who::kOther, length()}});
      other_ = {};
    }
    uint32_t stride = n_pages / 2 + 1;
    while (std::gcd(stride, n_pages) != 1) ++stride;
    for (uint32_t i = 0; i < n_pages; ++i) free_pages_.push_back((i * stride + 1) % n_pages);
  }

 private:
  struct Progress {
    uint32_t done = 0;
    std::vector<uint32_t> pages;
  };

  void add(Who who, uint32_t n, Logits logits, Course::Stop& stop) {
    Progress& progress = who == Who::kWatched ? watched_ : other_;
    const std::vector<int32_t>& all = who == Who::kWatched ? tokens_.watched : tokens_.other;
    n = std::min(n, length() - progress.done);
    if (n == 0) return;
    while (progress.pages.size() * course_.page_size < progress.done + n) {
      progress.pages.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
    Batch& batch = stop.batch;
    if (who == Who::kWatched) stop.rows = {batch.rows(), n, progress.done};
    batch.sequences.push_back({batch.rows(), n, progress.done, static_cast<uint32_t>(batch.pages.size()),
                               static_cast<uint32_t>(progress.pages.size())});
    batch.pages.insert(batch.pages.end(), progress.pages.begin(), progress.pages.end());
    for (uint32_t i = 0; i < n; ++i) {
      if (logits == Logits::kAllRows || i + 1 == n) batch.logit_rows.push_back(batch.rows());
      batch.tokens.push_back(all[progress.done++]);
    }
  }

  const CourseTokens& tokens_;
  Course course_;
  Progress watched_, other_;
  std::vector<uint32_t> free_pages_;
};

constexpr uint32_t kPageSizes[] = {16, 32, 64};

// Lengths of a prefill: one row, few, more than a tile of any kernel, more than two chunks of softmax.
std::vector<uint32_t> prefill_lengths(uint32_t longest) {
  std::vector<uint32_t> lengths;
  for (const uint32_t n : {1u, 2u, 5u, 33u})
    if (n < longest) lengths.push_back(n);
  lengths.push_back(longest);
  return lengths;
}

Course prefill_then_decode(const CourseTokens& tokens, uint32_t n, uint32_t n_decoded) {
  CourseWriter writer(tokens, 64);
  writer.watched(n);
  writer.decode(n_decoded);
  return std::move(writer).take();
}

Course chunks(const CourseTokens& tokens, uint32_t rows) {
  CourseWriter writer(tokens, 32);
  while (writer.left() > 0) writer.watched(rows, Logits::kLastRow);
  return std::move(writer).take();
}

// Ends a prefill one before a border, decodes across it, prefills to one before the next and decodes across that.
Course borders(const CourseTokens& tokens, uint32_t page_size) {
  CourseWriter writer(tokens, page_size);
  writer.watched(page_size - 1);
  writer.decode(3);
  writer.watched(page_size - 3);
  writer.decode(3);
  return std::move(writer).take();
}

// A prefill that ends at a border, a chunk that begins there and ends at the next, then decoded rows.
Course at_borders(const CourseTokens& tokens, uint32_t page_size) {
  CourseWriter writer(tokens, page_size);
  writer.watched(page_size);
  writer.watched(page_size);
  writer.decode(2);
  return std::move(writer).take();
}

Course scattered(const CourseTokens& tokens, uint32_t page_size) {
  CourseWriter writer(tokens, page_size);
  writer.use_and_scatter_pages();
  writer.watched(writer.length() / 2);
  writer.decode(3);
  writer.watched(writer.left());
  return std::move(writer).take();
}

// Both sequences grow at different rates in the same batches, each first in some of them.
Course company(const CourseTokens& tokens, bool scatter) {
  CourseWriter writer(tokens, 16);
  if (scatter) writer.use_and_scatter_pages();
  writer.batch({{Who::kOther, 9}});
  writer.batch({{Who::kWatched, 5}, {Who::kOther, 1}});
  writer.batch({{Who::kOther, 6}, {Who::kWatched, 1}}, Logits::kLastRow);
  writer.batch({{Who::kOther, 1}, {Who::kWatched, 11}});
  writer.batch({{Who::kWatched, 1}, {Who::kOther, 1}});
  writer.batch({{Who::kOther, 1}, {Who::kWatched, 1}});
  writer.decode(1);  // after decodes of two, which a backend may have recorded
  writer.batch({{Who::kWatched, writer.left()}, {Who::kOther, 20}}, Logits::kLastRow);
  return std::move(writer).take();
}

}  // namespace

Course prefill(const CourseTokens& tokens, uint32_t n, bool shows_steps) {
  CourseWriter writer(tokens, 64);
  if (shows_steps) writer.show_steps();
  writer.watched(n);
  return std::move(writer).take();
}

CompileOptions Course::compile_options(DType kv_dtype) const {
  CompileOptions options{.kv = {.n_pages = 1, .page_size = page_size, .dtype = kv_dtype},
                         .max_rows = 1,
                         .max_logit_rows = 1,
                         .poison = true};
  for (const Stop& stop : stops) {
    options.max_rows = std::max(options.max_rows, stop.batch.rows());
    options.max_logit_rows = std::max(options.max_logit_rows, static_cast<uint32_t>(stop.batch.logit_rows.size()));
    for (const uint32_t page : stop.batch.pages) options.kv.n_pages = std::max(options.kv.n_pages, page + 1);
  }
  return options;
}

std::vector<CourseCheck> course_checks(const CourseTokens& tokens) {
  const auto longest = static_cast<uint32_t>(tokens.watched.size());
  const std::vector<uint32_t> lengths = prefill_lengths(longest);
  std::vector<CourseCheck> checks;
  checks.reserve(lengths.size() + 16);
  for (const uint32_t n : lengths)
    checks.push_back({n == 1 ? CheckKind::kToken : CheckKind::kPrefill,
                      n == 1 ? "1 token" : fmt::format("{} tokens", n),
                      "all steps of one batch",
                      {prefill(tokens, n, true)}});
  const auto add = [&](CheckKind kind, const char* name, std::string what) -> std::vector<Course>& {
    return checks.emplace_back(CourseCheck{kind, name, std::move(what), {}}).courses;
  };
  std::vector<Course>& fused = add(CheckKind::kFusion, "fused", "the same batches as an engine runs them");
  for (const uint32_t n : lengths) fused.push_back(prefill(tokens, n, false));
  if (longest == 1) return checks;

  const uint32_t n_decoded = std::min(longest, 33u);
  add(CheckKind::kDecode, "decode", fmt::format("{} positions, decoded after 1 and after 5 tokens", n_decoded)) = {
      prefill_then_decode(tokens, 1, n_decoded - 1),
      prefill_then_decode(tokens, 5, n_decoded - std::min(5u, n_decoded))};
  add(CheckKind::kChunks, "chunks", fmt::format("{} tokens in chunks of 3, 16 and 50", longest)) = {
      chunks(tokens, 3), chunks(tokens, 16), chunks(tokens, 50)};
  std::string sizes;
  std::vector<Course> at_pages;
  for (const uint32_t size : kPageSizes) {
    if (size > longest) continue;
    at_pages.push_back(borders(tokens, size));
    at_pages.push_back(at_borders(tokens, size));
    sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", size);
  }
  if (!at_pages.empty())
    add(CheckKind::kBorders, "page borders", fmt::format("lengths around pages of {}", sizes)) = std::move(at_pages);
  if (longest > kPageSizes[0])
    add(CheckKind::kScatter, "scattered pages",
        "pages out of order, with another sequence's keys and values left in them") = {scattered(tokens, 16),
                                                                                       scattered(tokens, 32)};
  add(CheckKind::kCompany, "two sequences", "another sequence in the same batches") = {company(tokens, false),
                                                                                       company(tokens, true)};
  return checks;
}

}  // namespace llorch
