// The signals that a spoken command may move, as the COVESA Vehicle Signal Specification has them: what the judge
// accepts and the generator asks for. Tables of constants: any thread, no errors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace updraft::cockpit {

// Where a command acts. Left-hand drive: the driver sits front left.
enum Zone : unsigned {
  kZoneNone = 0,  // the signal has no zones
  kDriver = 1,
  kPassenger = 2,
  kRearDriver = 4,  // behind the driver
  kRearPassenger = 8,
  kFront = kDriver | kPassenger,
  kRear = kRearDriver | kRearPassenger,
  kLeft = kDriver | kRearDriver,
  kRight = kPassenger | kRearPassenger,
  kEverywhere = kFront | kRear,
};

// How a zone is spelled in a signal's path.
enum class Zoning {
  kNone,
  kStation,  // Row1.Driver, Row1.Passenger, Row2.Driver, Row2.Passenger
  kSeat,     // Row1.DriverSide, Row1.PassengerSide, ...
  kMirror,   // DriverSide, PassengerSide
};

enum class Datatype { kBoolean, kFloat, kUint8, kInt8, kString };

// One actuator of the COVESA Vehicle Signal Specification 6.0 that a spoken command may move. `%` in the path stands
// for the zone. Numbers hold the specification's range where it has one; `allowed` is its list, joined with '|'.
struct Signal {
  std::string_view path;
  Zoning zoning;
  Datatype datatype;
  std::string_view unit;  // the specification's word; empty when it has none
  double min;             // NaN: the specification gives none
  double max;
  std::string_view allowed;
};

// In the order of the specification's branches; never changes while the process runs.
const std::vector<Signal>& Catalogue();

// The path in one zone (exactly one bit of Zone, or kZoneNone).
std::string PathInZone(std::string_view path, Zoning zoning, unsigned zone);

// Every path that the catalogue stands for, each zone of a signal on its own.
std::vector<std::string> AllPaths();

// The signal of a full path; null when there is none. Any bytes are accepted.
const Signal* FindSignal(std::string_view full_path);

}  // namespace updraft::cockpit
