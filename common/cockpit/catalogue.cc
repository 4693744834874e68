#include "common/cockpit/catalogue.h"

#include <functional>
#include <limits>
#include <map>

namespace updraft::cockpit {
namespace {

constexpr double kUnbounded = std::numeric_limits<double>::quiet_NaN();
constexpr std::string_view kWiperModes = "OFF|SLOW|MEDIUM|FAST|INTERVAL|RAIN_SENSOR";

}  // namespace

const std::vector<Signal>& Catalogue() {
  using enum Zoning;
  using enum Datatype;
  static const auto* signals = new std::vector<Signal>{
      {"Vehicle.Cabin.HVAC.Station.%.Temperature", kStation, kFloat, "Celsius", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.HVAC.Station.%.FanSpeed", kStation, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Cabin.HVAC.Station.%.AirDistribution", kStation, kString, "", kUnbounded, kUnbounded, "UP|MIDDLE|DOWN"},
      {"Vehicle.Cabin.HVAC.IsAirConditioningActive", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.HVAC.IsFrontDefrosterActive", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.HVAC.IsRearDefrosterActive", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.HVAC.IsRecirculationActive", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.Seat.%.HeatingCooling", kSeat, kInt8, "percent", -100, 100, ""},
      {"Vehicle.Cabin.Seat.%.Massage.Level", kSeat, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Cabin.Seat.%.Backrest.Recline", kSeat, kFloat, "degrees", kUnbounded, kUnbounded, ""},
      {"Vehicle.Chassis.SteeringWheel.HeatingCooling", Zoning::kNone, kInt8, "percent", -100, 100, ""},
      {"Vehicle.Cabin.Door.%.Window.Position", kSeat, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Cabin.Door.%.IsLocked", kSeat, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.IsWindowChildLockEngaged", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.Sunroof.Switch", Zoning::kNone, kString, "", kUnbounded, kUnbounded,
       "INACTIVE|CLOSE|OPEN|ONE_SHOT_CLOSE|ONE_SHOT_OPEN|TILT_UP|TILT_DOWN"},
      {"Vehicle.Cabin.Sunroof.Shade.Position", Zoning::kNone, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Cabin.RearShade.Position", Zoning::kNone, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Body.Trunk.Rear.IsOpen", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Trunk.Front.IsOpen", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Mirrors.%.IsFolded", kMirror, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Mirrors.%.IsHeatingOn", kMirror, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Windshield.Front.Wiping.Mode", Zoning::kNone, kString, "", kUnbounded, kUnbounded, kWiperModes},
      {"Vehicle.Body.Windshield.Rear.Wiping.Mode", Zoning::kNone, kString, "", kUnbounded, kUnbounded, kWiperModes},
      {"Vehicle.Body.Lights.Beam.High.IsOn", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Lights.Beam.Low.IsOn", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Lights.Fog.Front.IsOn", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Lights.Fog.Rear.IsOn", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Body.Lights.Hazard.IsSignaling", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.Light.AmbientLight.%.Color", kSeat, kString, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.Light.AmbientLight.%.Intensity", kSeat, kUint8, "percent", 1, 100, ""},
      {"Vehicle.Cabin.Light.Spotlight.%.IsLightOn", kSeat, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.Light.IsDomeOn", Zoning::kNone, kBoolean, "", kUnbounded, kUnbounded, ""},
      {"Vehicle.Cabin.Infotainment.Media.Volume", Zoning::kNone, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Cabin.Infotainment.Media.Action", Zoning::kNone, kString, "", kUnbounded, kUnbounded,
       "UNKNOWN|STOP|PLAY|FAST_FORWARD|FAST_BACKWARD|SKIP_FORWARD|SKIP_BACKWARD"},
      {"Vehicle.Cabin.Infotainment.Navigation.Volume", Zoning::kNone, kUint8, "percent", 0, 100, ""},
      {"Vehicle.Cabin.Infotainment.HMI.Brightness", Zoning::kNone, kFloat, "percent", 0, 100, ""},
      {"Vehicle.Cabin.Infotainment.HMI.DayNightMode", Zoning::kNone, kString, "", kUnbounded, kUnbounded, "DAY|NIGHT"},
      {"Vehicle.Powertrain.Transmission.PerformanceMode", Zoning::kNone, kString, "", kUnbounded, kUnbounded,
       "NORMAL|SPORT|ECONOMY|SNOW|RAIN"},
      {"Vehicle.Powertrain.TractionBattery.Charging.ChargeLimit", Zoning::kNone, kUint8, "percent", 0, 100, ""},
      {"Vehicle.ADAS.CruiseControl.SpeedSet", Zoning::kNone, kFloat, "km/h", kUnbounded, kUnbounded, ""},
  };
  return *signals;
}

std::string PathInZone(std::string_view path, Zoning zoning, unsigned zone) {
  const size_t at = path.find('%');
  if (zoning == Zoning::kNone || at == std::string_view::npos) return std::string(path);
  const bool driver = zone == kDriver || zone == kRearDriver;
  std::string middle = driver ? "Driver" : "Passenger";
  if (zoning != Zoning::kStation) middle += "Side";
  if (zoning != Zoning::kMirror) middle = ((zone & kFront) != 0 ? "Row1." : "Row2.") + middle;
  return std::string(path.substr(0, at)) + middle + std::string(path.substr(at + 1));
}

std::vector<std::string> AllPaths() {
  std::vector<std::string> paths;
  for (const Signal& signal : Catalogue()) {
    if (signal.zoning == Zoning::kNone) {
      paths.emplace_back(signal.path);
      continue;
    }
    const unsigned zones = signal.zoning == Zoning::kMirror ? kFront : kEverywhere;
    for (unsigned zone = 1; zone <= kRearPassenger; zone <<= 1) {
      if (zones & zone) paths.push_back(PathInZone(signal.path, signal.zoning, zone));
    }
  }
  return paths;
}

const Signal* FindSignal(std::string_view full_path) {
  static const auto* by_path = [] {
    auto* map = new std::map<std::string, const Signal*, std::less<>>();
    for (const Signal& signal : Catalogue()) {
      for (unsigned zone = 1; zone <= kRearPassenger; zone <<= 1) {
        if (signal.zoning == Zoning::kMirror && zone > kPassenger) continue;
        (*map)[PathInZone(signal.path, signal.zoning, zone)] = &signal;
      }
    }
    return map;
  }();
  const auto it = by_path->find(full_path);
  return it == by_path->end() ? nullptr : it->second;
}

}  // namespace updraft::cockpit
