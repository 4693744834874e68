// Today's schema beside those of earlier versions: whatever they say still means the same.
#include <gtest/gtest.h>

#include "tests/common/rpc/recorded_wire.h"
#include "updraft/v1/inference.pb.h"

namespace updraft::testing {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

void ExpectKept(const EnumDescriptor& old_type, const EnumDescriptor* now) {
  ASSERT_NE(now, nullptr) << old_type.full_name();
  for (int i = 0; i < old_type.value_count(); ++i) {
    const auto* value = now->FindValueByNumber(old_type.value(i)->number());
    ASSERT_NE(value, nullptr) << old_type.value(i)->full_name();
    EXPECT_EQ(value->name(), old_type.value(i)->name());
  }
}

std::string TypeOf(const FieldDescriptor& field) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) return field.message_type()->full_name();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) return field.enum_type()->full_name();
  return field.type_name();
}

void ExpectKept(const Descriptor& old_type, const Descriptor* now) {
  ASSERT_NE(now, nullptr) << old_type.full_name();
  for (int i = 0; i < old_type.field_count(); ++i) {
    const FieldDescriptor& field = *old_type.field(i);
    const FieldDescriptor* kept = now->FindFieldByNumber(field.number());
    ASSERT_NE(kept, nullptr) << field.full_name() << " is gone";
    EXPECT_EQ(kept->name(), field.name()) << field.full_name();
    EXPECT_EQ(TypeOf(*kept), TypeOf(field)) << field.full_name();
    EXPECT_EQ(kept->is_repeated(), field.is_repeated()) << field.full_name();
    EXPECT_EQ(kept->has_presence(), field.has_presence()) << field.full_name();
    const auto* oneof = field.containing_oneof();
    EXPECT_EQ(oneof != nullptr, kept->containing_oneof() != nullptr) << field.full_name();
  }
  for (int i = 0; i < old_type.nested_type_count(); ++i) {
    ExpectKept(*old_type.nested_type(i), now->FindNestedTypeByName(old_type.nested_type(i)->name()));
  }
  for (int i = 0; i < old_type.enum_type_count(); ++i) {
    ExpectKept(*old_type.enum_type(i), now->FindEnumTypeByName(old_type.enum_type(i)->name()));
  }
}

void ExpectServicesKept(const FileDescriptor& old_file, const FileDescriptor& now) {
  for (int s = 0; s < old_file.service_count(); ++s) {
    const auto* service = now.FindServiceByName(old_file.service(s)->name());
    ASSERT_NE(service, nullptr) << old_file.service(s)->full_name();
    for (int i = 0; i < old_file.service(s)->method_count(); ++i) {
      const auto* method = old_file.service(s)->method(i);
      const auto* kept = service->FindMethodByName(method->name());
      ASSERT_NE(kept, nullptr) << method->full_name();
      EXPECT_EQ(kept->input_type()->full_name(), method->input_type()->full_name());
      EXPECT_EQ(kept->output_type()->full_name(), method->output_type()->full_name());
      EXPECT_EQ(kept->client_streaming(), method->client_streaming());
      EXPECT_EQ(kept->server_streaming(), method->server_streaming());
    }
  }
}

TEST(SchemaVersions, NothingThatWasSaidMeansSomethingElse) {
  const FileDescriptor& now = *v1::GenerateRequest::descriptor()->file();
  const auto versions = RecordedVersions();
  ASSERT_FALSE(versions.empty()) << "expected recordings in " << RecordingsFolder();
  for (const std::string& version : versions) {
    SCOPED_TRACE(version);
    const RecordedSchema schema(version);
    EXPECT_EQ(schema.file().package(), now.package());
    for (int i = 0; i < schema.file().message_type_count(); ++i) {
      const Descriptor& old_type = *schema.file().message_type(i);
      ExpectKept(old_type, now.FindMessageTypeByName(old_type.name()));
    }
    for (int i = 0; i < schema.file().enum_type_count(); ++i) {
      const EnumDescriptor& old_type = *schema.file().enum_type(i);
      ExpectKept(old_type, now.FindEnumTypeByName(old_type.name()));
    }
    ExpectServicesKept(schema.file(), now);
  }
}

}  // namespace
}  // namespace updraft::testing
