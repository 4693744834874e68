#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_INTENTS_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_INTENTS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/cockpit/catalogue.h"
#include "deploy/train/cockpit/composer.h"

namespace updraft::cockpit {

// The range of numbers that people say for a signal.
enum class Scale {
  kNone,
  kTemperature,      // 16 to 28 degrees in halves
  kPercent,          // 1 to 100
  kNegativePercent,  // spoken 1 to 100, stored -1 to -100 (seat cooling)
  kAngle,            // 5 to 45 degrees
  kSpeed,            // 30 to 150 km/h
  kChargeLimit,      // 50 to 100 percent
};

// One way to say an intent. `fixed`: the value as JSON, or empty when the pattern has {n}. Slots: {n} number with its
// unit, {za}/{zp} zone as an adjective or after the noun (English), {z} zone (Chinese), {s} plural ending.
struct Form {
  std::string_view english;
  std::string_view chinese;
  std::string_view fixed;
};

struct Intent {
  std::string_view id;
  std::string_view path;  // of the catalogue, with % for the zone
  Scale scale;
  std::string_view noun_english;  // for the reply and for follow-ups
  std::string_view noun_chinese;
  std::vector<Form> forms;
};

// Which zones are meant, in words. `plain`: left unsaid; `adjective`: before the noun instead of in a phrase after it.
struct ZoneWords {
  std::string adjective;  // "the", "my", "the rear left"
  std::string phrase;     // "", "on the passenger side"
  std::string chinese;
};
ZoneWords SayZone(unsigned zones, bool plain, bool adjective, Composer* composer);
unsigned DrawZones(const Intent& intent, Composer* composer);
// What is meant when nobody says where: the driver, both mirrors, every door.
unsigned PlainZones(const Intent& intent);
std::vector<unsigned> SingleZones(unsigned zones);

// A number as people say it, with its unit: "22 degrees", "forty percent", "百分之四十". Values are in tenths.
//
// Each intent keeps one range of its numbers for the test and one for calibration, in every zone and however the number
// comes about; none of its fixed values and of what wishes stand for lies in them.
Split SideOfNumber(const Intent& intent, int tenths);
int DrawTenths(const Intent& intent, Composer* composer);
std::string SayNumber(int tenths, Scale scale, Composer* composer);
nlohmann::json NumberJson(int tenths, Scale scale);

// What a request means so far.
struct Meaning {
  nlohmann::ordered_json set = nlohmann::ordered_json::object();
  nlohmann::ordered_json call = nlohmann::ordered_json::object();
};

// One intent, said: the words, the settings and the reply.
struct Clause {
  std::string text;
  Meaning meaning;
  std::string say;
  const Intent* intent = nullptr;
  const Form* form = nullptr;
  unsigned zones = kZoneNone;
  int tenths = 0;  // of a {n} form
};

const std::vector<Intent>& Intents();
const Signal& SignalOf(const Intent& intent);

// Says `intent` (a random one when null) in `zones` (drawn when kZoneNone). Words that have no room for a zone mean
// PlainZones, whatever was asked for: see Clause::zones.
Clause SayIntent(const Intent* intent, unsigned zones, Composer* composer);
// The settings of a value in every zone.
void SetInZones(const Intent& intent, unsigned zones, const nlohmann::json& value, nlohmann::ordered_json* set);
std::string ReplyFor(const Intent& intent, const nlohmann::json& value, Language language);

// Numbers of an intent that wishes stand for, in tenths.
std::vector<int> WishedTenths(std::string_view intent);

// Navigation, media and phone.
Clause SayCall(Composer* composer);

// Entities that training and the test never share.
std::string DrawPerson(Composer* composer);
std::string DrawPlace(Composer* composer);
std::string DrawSong(Composer* composer);
// Words for those whom people call most ("mom"): vocabulary, open to every split.
const std::vector<std::string_view>& FamiliarContacts(Language language);
// A person or a familiar contact.
std::string DrawContact(Composer* composer);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_INTENTS_H_
