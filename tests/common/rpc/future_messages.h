// Messages as a later version of the schema may send them: fields, members of oneofs and values of enums that are not
// known here, at any depth, drawn from a seed over the descriptors, so that a message that grows is covered as it
// grows.
#pragma once

#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace updraft::testing {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::UnknownFieldSet;

// A number that the message does not use: small as the next fields', or anywhere.
inline int UnusedNumber(const Descriptor& descriptor, std::mt19937_64& random) {
  while (true) {
    const int number = static_cast<int>(random() % 2 == 0 ? 1 + random() % 40 : 1 + random() % ((1u << 29) - 1));
    const bool reserved = number >= 19000 && number < 20000;  // by protobuf itself
    if (!reserved && descriptor.FindFieldByNumber(number) == nullptr) return number;
  }
}

// One field of each wire type, in any order.
inline void AddUnknownFields(const Descriptor& descriptor, std::mt19937_64& random, UnknownFieldSet* fields) {
  const auto number = [&] { return UnusedNumber(descriptor, random); };
  for (int i = static_cast<int>(random() % 5), n = 0; n < 5; ++n, i = (i + 1) % 5) {
    if (i == 0) fields->AddVarint(number(), random());
    if (i == 1) fields->AddFixed32(number(), static_cast<uint32_t>(random()));
    if (i == 2) fields->AddFixed64(number(), random());
    if (i == 3) fields->AddLengthDelimited(number(), std::string(random() % 40, static_cast<char>(random())));
    if (i == 4) fields->AddGroup(number())->AddVarint(1, random());
  }
}

// To the message and to every message that is in it.
inline void AddUnknownFields(Message& message, std::mt19937_64& random) {
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> set;
  reflection.ListFields(message, &set);
  for (const FieldDescriptor* field : set) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) AddUnknownFields(*reflection.MutableMessage(&message, field), random);
    for (int i = 0; field->is_repeated() && i < reflection.FieldSize(message, field); ++i) {
      AddUnknownFields(*reflection.MutableRepeatedMessage(&message, field, i), random);
    }
  }
  AddUnknownFields(*message.GetDescriptor(), random, reflection.MutableUnknownFields(&message));
}

// How to get from a message to a field in it, through singular messages.
using FieldPath = std::vector<const FieldDescriptor*>;

// Every enum that a message has, however deep. Those within repeated messages are not looked for.
inline std::vector<FieldPath> EnumsOf(const Descriptor& descriptor, int depth = 4) {
  std::vector<FieldPath> paths;
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) paths.push_back({field});
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated() || depth == 0) continue;
    for (FieldPath& below : EnumsOf(*field->message_type(), depth - 1)) {
      below.insert(below.begin(), field);
      paths.push_back(std::move(below));
    }
  }
  return paths;
}

inline std::string PathName(const FieldPath& path) {
  std::string name;
  for (const FieldDescriptor* field : path) name += (name.empty() ? "" : ".") + field->name();
  return name;
}

inline void SetEnum(Message& message, const FieldPath& path, int value) {
  Message* at = &message;
  for (size_t i = 0; i + 1 < path.size(); ++i) at = at->GetReflection()->MutableMessage(at, path[i]);
  at->GetReflection()->SetEnumValue(at, path.back(), value);
}

// Values that a later version may have: the next one, far ones, and what no schema should have.
inline std::vector<int> UnknownValuesOf(const FieldPath& path) {
  const auto* type = path.back()->enum_type();
  int next = 0;
  for (int i = 0; i < type->value_count(); ++i) next = std::max(next, type->value(i)->number() + 1);
  return {next, 77, std::numeric_limits<int>::max(), -1, std::numeric_limits<int>::min()};
}

}  // namespace updraft::testing
