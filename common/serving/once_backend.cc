#include "common/serving/once_backend.h"

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "common/http/openai.h"
#include "common/sync/mutex.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

// Of an answer without a word, with what holds it.
constexpr size_t kAnswerBytes = 1024;

size_t BytesOf(const v1::Chunk& chunk) {
  constexpr size_t kEvidenceBytes = 64;  // a message of its own
  constexpr size_t kTopBytes = 48;       // as is each token that could have been chosen
  size_t n_top = 0;
  for (const v1::Evidence& evidence : chunk.evidence()) n_top += static_cast<size_t>(evidence.top_size());
  return chunk.text().size() + sizeof(int32_t) * static_cast<size_t>(chunk.tokens_size()) +
         kEvidenceBytes * static_cast<size_t>(chunk.evidence_size()) + kTopBytes * n_top;
}

// Two bodies of one id pass for the same with a probability of 2^-64.
uint64_t FingerprintOf(v1::GenerateRequest request) {
  request.clear_request_id();
  request.clear_priority();  // changes when it is answered, not what
  return absl::HashOf(request.SerializeAsString());
}

// Of each tenant its own: what one calls a request is nothing to another. Neither has a line break in it.
std::string IdOf(const v1::GenerateRequest& request) {
  return absl::StrCat(request.tenant(), "\n", request.request_id());
}

}  // namespace

// One answer, running or kept, and who waits for it. No lock is held while a sink hears its end, so that a sink may
// cancel others then.
class OnceBackend::Answer {
 public:
  // first: whoever asked.
  Answer(std::string id, uint64_t fingerprint, std::shared_ptr<AnswerSink> first)
      : id_(std::move(id)), fingerprint_(fingerprint), sinks_({std::move(first)}) {}

  const std::string& id() const { return id_; }
  uint64_t fingerprint() const { return fingerprint_; }

  enum class Attached : uint8_t {
    kRunning,  // the sink hears what there is, and then what comes
    kEnded,    // it has heard all
    kNotKept,  // what was said is not kept to be told
    kLeft      // by everybody: it is being cancelled
  };
  Attached Attach(const std::shared_ptr<AnswerSink>& sink) ABSL_LOCKS_EXCLUDED(mu_);

  // Of the backend.
  absl::Status OnChunk(const v1::Chunk& chunk) ABSL_LOCKS_EXCLUDED(mu_);
  void OnEnd(const absl::Status& status, const v1::Done& done) ABSL_LOCKS_EXCLUDED(mu_);
  void Forget() ABSL_LOCKS_EXCLUDED(mu_);  // what was said; nothing is kept from here on

  // The backend's handle has come, after the answer perhaps.
  void Started(RequestHandle handle) ABSL_LOCKS_EXCLUDED(mu_);
  // One that waited has left. True: it was the last, and the backend has been told.
  bool Leave(const AnswerSink* sink) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<int> QueuePlace() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::string id_;
  const uint64_t fingerprint_;
  Mutex mu_;
  std::vector<std::shared_ptr<AnswerSink>> sinks_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::Chunk> said_ ABSL_GUARDED_BY(mu_);  // one per writer in a row
  bool kept_ ABSL_GUARDED_BY(mu_) = true;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool left_ ABSL_GUARDED_BY(mu_) = false;  // by everybody
  v1::Done done_ ABSL_GUARDED_BY(mu_);
  RequestHandle handle_ ABSL_GUARDED_BY(mu_);
};

OnceBackend::Answer::Attached OnceBackend::Answer::Attach(const std::shared_ptr<AnswerSink>& sink) {
  v1::Done done;
  absl::Status refusal;
  {
    MutexLock lock(mu_);
    if (left_) return Attached::kLeft;
    if (!kept_) return Attached::kNotKept;
    for (size_t i = 0; i < said_.size() && refusal.ok(); ++i) refusal = sink->OnChunk(said_[i]);
    if (refusal.ok() && !ended_) {
      sinks_.push_back(sink);
      return Attached::kRunning;
    }
    done = done_;
  }
  sink->OnEnd(refusal, done);
  return Attached::kEnded;
}

absl::Status OnceBackend::Answer::OnChunk(const v1::Chunk& chunk) {
  std::vector<std::pair<std::shared_ptr<AnswerSink>, absl::Status>> gone;
  {
    MutexLock lock(mu_);
    if (kept_ && !said_.empty() && said_.back().tier() == chunk.tier()) {
      const std::string text = said_.back().text() + chunk.text();
      said_.back().MergeFrom(chunk);
      said_.back().set_text(text);
    } else if (kept_) {
      said_.push_back(chunk);
    }
    for (size_t i = 0; i < sinks_.size();) {
      absl::Status taken = sinks_[i]->OnChunk(chunk);
      if (taken.ok()) {
        ++i;
      } else if (sinks_.size() == 1) {
        left_ = true;
        return taken;  // the request ends with it, in the books too
      } else {
        gone.emplace_back(std::move(sinks_[i]), std::move(taken));
        sinks_.erase(sinks_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }
  for (const auto& [sink, why] : gone) sink->OnEnd(why, {});
  return absl::OkStatus();
}

void OnceBackend::Answer::OnEnd(const absl::Status& status, const v1::Done& done) {
  std::vector<std::shared_ptr<AnswerSink>> sinks;
  {
    MutexLock lock(mu_);
    ended_ = true;
    done_ = done;
    handle_ = RequestHandle();  // which may hold what holds this
    sinks.swap(sinks_);
  }
  for (const auto& sink : sinks) sink->OnEnd(status, done);
}

void OnceBackend::Answer::Forget() {
  MutexLock lock(mu_);
  kept_ = false;
  said_ = {};
}

void OnceBackend::Answer::Started(RequestHandle handle) {
  {
    MutexLock lock(mu_);
    if (ended_) return;
    handle_ = handle;
    if (!left_) return;
  }
  handle.Cancel();
}

bool OnceBackend::Answer::Leave(const AnswerSink* sink) {
  std::shared_ptr<AnswerSink> leaving;
  RequestHandle handle;
  {
    MutexLock lock(mu_);
    size_t i = 0;
    while (i < sinks_.size() && sinks_[i].get() != sink) ++i;
    if (i == sinks_.size()) return false;
    if (sinks_.size() > 1) {
      leaving = std::move(sinks_[i]);
      sinks_.erase(sinks_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      // It hears the end from the backend, which says how far things went.
      left_ = true;
      handle = handle_;
    }
  }
  if (leaving == nullptr) return handle.Cancel(), true;
  leaving->OnEnd(absl::CancelledError("the request was cancelled"), {});
  return false;
}

std::optional<int> OnceBackend::Answer::QueuePlace() {
  RequestHandle handle;
  {
    MutexLock lock(mu_);
    handle = handle_;
  }
  return handle.QueuePlace();
}

// Which ids there are, and how much they take. Never calls out with its lock held but to answers, which call nobody
// then: the table's lock comes before an answer's.
class OnceBackend::Table {
 public:
  explicit Table(OnceOptions options) : options_(std::move(options)) {}

  // The answer of this id, if there is one, or a new one that `sink` waits for; true: new.
  std::pair<std::shared_ptr<Answer>, bool> FindOrMake(const std::string& id, uint64_t fingerprint,
                                                      const std::shared_ptr<AnswerSink>& sink);
  void Grow(Answer* answer, size_t n_bytes);
  void Keep(Answer* answer);    // it ended well, and is kept for the grace
  void Remove(Answer* answer);  // its id is free
  size_t n_bytes() const;

 private:
  struct Entry {
    std::shared_ptr<Answer> answer;
    size_t n_bytes = kAnswerBytes;
    bool kept = true;  // false: it is too large
    bool ended = false;
    SteadyTime until;                           // of one that ended, as is the next
    std::list<std::string>::iterator ended_at;  // in ended_
  };
  using Entries = std::unordered_map<std::string, Entry>;

  Entries::iterator Find(const Answer* answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Erase(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Forgets what has been kept long enough, and more, until `n_bytes` fit. False: they do not.
  bool MakeRoom(size_t n_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const OnceOptions options_;
  mutable Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
  std::list<std::string> ended_ ABSL_GUARDED_BY(mu_);  // ids, in the order of their ends
  size_t n_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

OnceBackend::Table::Entries::iterator OnceBackend::Table::Find(const Answer* answer) {
  const auto entry = entries_.find(answer->id());
  return entry != entries_.end() && entry->second.answer.get() == answer ? entry : entries_.end();
}

void OnceBackend::Table::Erase(Entries::iterator entry) {
  n_bytes_ -= entry->second.n_bytes;
  if (entry->second.ended) ended_.erase(entry->second.ended_at);
  entries_.erase(entry);
}

bool OnceBackend::Table::MakeRoom(size_t n_bytes) {
  const SteadyTime now = options_.clock();
  while (!ended_.empty()) {
    const auto first = entries_.find(ended_.front());
    if (first->second.until > now && n_bytes_ + n_bytes <= options_.max_bytes) break;
    Erase(first);
  }
  return n_bytes_ + n_bytes <= options_.max_bytes;
}

std::pair<std::shared_ptr<OnceBackend::Answer>, bool> OnceBackend::Table::FindOrMake(
    const std::string& id, uint64_t fingerprint, const std::shared_ptr<AnswerSink>& sink) {
  MutexLock lock(mu_);
  MakeRoom(0);
  if (const auto found = entries_.find(id); found != entries_.end()) return {found->second.answer, false};
  auto answer = std::make_shared<Answer>(id, fingerprint, sink);
  if (MakeRoom(kAnswerBytes)) {
    entries_[id].answer = answer;
    n_bytes_ += kAnswerBytes;
  } else {
    answer->Forget();  // it runs unguarded
  }
  return {answer, true};
}

void OnceBackend::Table::Grow(Answer* answer, size_t n_bytes) {
  MutexLock lock(mu_);
  const auto entry = Find(answer);
  if (entry == entries_.end() || !entry->second.kept) return;
  if (MakeRoom(n_bytes)) {
    entry->second.n_bytes += n_bytes;
    n_bytes_ += n_bytes;
    return;
  }
  answer->Forget();
  n_bytes_ -= entry->second.n_bytes - kAnswerBytes;
  entry->second.n_bytes = kAnswerBytes;
  entry->second.kept = false;
}

void OnceBackend::Table::Keep(Answer* answer) {
  MutexLock lock(mu_);
  const auto entry = Find(answer);
  if (entry == entries_.end()) return;
  if (!entry->second.kept) return Erase(entry);
  entry->second.until = options_.clock() + options_.grace;
  entry->second.ended = true;
  entry->second.ended_at = ended_.insert(ended_.end(), answer->id());
}

void OnceBackend::Table::Remove(Answer* answer) {
  MutexLock lock(mu_);
  if (const auto entry = Find(answer); entry != entries_.end()) Erase(entry);
}

size_t OnceBackend::Table::n_bytes() const {
  MutexLock lock(mu_);
  return n_bytes_;
}

// What the backend writes to.
class OnceBackend::Recorder final : public AnswerSink {
 public:
  Recorder(std::shared_ptr<Table> table, std::shared_ptr<Answer> answer)
      : table_(std::move(table)), answer_(std::move(answer)) {}

  absl::Status OnChunk(const v1::Chunk& chunk) override {
    table_->Grow(answer_.get(), BytesOf(chunk));
    return answer_->OnChunk(chunk);
  }
  void OnEnd(const absl::Status& status, const v1::Done& done) override {
    // First the table: who hears the end and asks again is told by what it says.
    if (status.ok()) {
      table_->Grow(answer_.get(), done.ByteSizeLong());
      table_->Keep(answer_.get());
    } else {
      table_->Remove(answer_.get());
    }
    answer_->OnEnd(status, done);
  }

 private:
  const std::shared_ptr<Table> table_;
  const std::shared_ptr<Answer> answer_;
};

OnceBackend::OnceBackend(Backend* backend, Metrics* metrics, OnceOptions options)
    : backend_(backend), metrics_(metrics), options_(std::move(options)), table_(std::make_shared<Table>(options_)) {}

OnceBackend::~OnceBackend() = default;

size_t OnceBackend::n_bytes() const { return table_->n_bytes(); }

void OnceBackend::Refuse(const v1::GenerateRequest& request, const absl::Status& why, AnswerSink& sink) const {
  metrics_->OnRefused("once", absl::StrCat(http::openai::HttpStatusOf(why)));
  LogEvent(LogLevel::kInfo, "refused", {{"id", request.request_id()}, {"reason", std::string(why.message())}});
  sink.OnEnd(why, {});
}

RequestHandle OnceBackend::Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) {
  if (options_.grace == absl::ZeroDuration() || request.request_id().empty() || request.hops() > 0) {
    return backend_->Submit(std::move(request), deadline, std::move(sink));
  }
  const uint64_t fingerprint = FingerprintOf(request);
  for (;;) {
    const auto [answer, is_new] = table_->FindOrMake(IdOf(request), fingerprint, sink);
    const RequestHandle handle(
        [table = table_, answer = answer, sink] {
          if (answer->Leave(sink.get())) table->Remove(answer.get());
        },
        [answer = answer] { return answer->QueuePlace(); });
    if (is_new) {
      answer->Started(backend_->Submit(std::move(request), deadline, std::make_shared<Recorder>(table_, answer)));
      return handle;
    }
    if (answer->fingerprint() != fingerprint) {
      Refuse(request,
             http::openai::FieldError(kRequestIdField,
                                      "names another request already; an id is of one "
                                      "request, so send this one with an id of its own"),
             *sink);
      return RequestHandle();
    }
    switch (answer->Attach(sink)) {
      case Answer::Attached::kRunning:
      case Answer::Attached::kEnded:
        LogEvent(LogLevel::kInfo, "repeated", {{"id", request.request_id()}});
        return handle;
      case Answer::Attached::kNotKept:
        Refuse(request,
               absl::AlreadyExistsError("request_id: is being answered, and what was said is too long to be said "
                                        "again; ask again when it has ended"),
               *sink);
        return RequestHandle();
      case Answer::Attached::kLeft:
        table_->Remove(answer.get());  // and so asks anew
    }
  }
}

}  // namespace updraft
