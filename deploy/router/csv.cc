#include "deploy/router/csv.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

class CsvParser {
 public:
  explicit CsvParser(std::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<CsvRecord>> Parse() {
    std::vector<CsvRecord> records;
    while (at_ < text_.size()) {
      CsvRecord record{line_, {}};
      bool more = true;
      while (more) {
        auto field = Field();
        if (!field.ok()) return field.status();
        record.fields.push_back(*std::move(field));
        more = at_ < text_.size() && text_[at_] == ',';
        if (more) ++at_;
      }
      EndLine();
      if (record.fields.size() > 1 || !record.fields[0].empty()) records.push_back(std::move(record));
    }
    return records;
  }

 private:
  bool AtEnd() const { return at_ >= text_.size() || text_[at_] == ',' || text_[at_] == '\n' || text_[at_] == '\r'; }

  void EndLine() {
    if (at_ < text_.size() && text_[at_] == '\r') ++at_;
    if (at_ < text_.size() && text_[at_] == '\n') ++at_;
    ++line_;
  }

  absl::StatusOr<std::string> Field() {
    if (at_ >= text_.size() || text_[at_] != '"') {
      const size_t begin = at_;
      while (!AtEnd()) ++at_;
      return std::string(text_.substr(begin, at_ - begin));
    }
    const int begins = line_;
    std::string field;
    for (++at_; at_ < text_.size(); ++at_) {
      const bool quote = text_[at_] == '"';
      if (quote && (at_ + 1 >= text_.size() || text_[at_ + 1] != '"')) {
        ++at_;
        if (AtEnd()) return field;
        return absl::InvalidArgumentError(
            absl::StrFormat("line %d: expected a comma or the end of the line after a closing quote", line_));
      }
      if (quote) ++at_;
      line_ += text_[at_] == '\n';
      field.push_back(text_[at_]);
    }
    return absl::InvalidArgumentError(absl::StrFormat("line %d: a quote that is not closed", begins));
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<CsvRecord>> ParseCsv(std::string_view text) { return CsvParser(text).Parse(); }

}  // namespace updraft
