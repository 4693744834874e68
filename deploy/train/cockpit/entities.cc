// Names, places and songs. They are composed, so that there are many more than a model can memorise: it must learn to
// copy, which is what makes held-out ones possible.
#include "absl/strings/str_cat.h"
#include "deploy/train/cockpit/intents.h"

namespace updraft::cockpit {
namespace {

using Words = std::vector<std::string_view>;

std::string Text(std::string_view word) { return std::string(word); }

// A made-up word of two or three syllables with a capital.
std::string MadeUpWord(Random* random) {
  static const Words kOnsets = {"b", "br", "c", "ch", "d", "dr", "f",  "fl", "g", "gr", "h",  "j", "k", "kl", "l",
                                "m", "n",  "p", "pr", "r", "s",  "sh", "st", "t", "th", "tr", "v", "w", "y",  "z"};
  static const Words kVowels = {"a", "e", "i", "o", "u", "ai", "ea", "oo", "ia", "ou"};
  static const Words kCodas = {"", "", "n", "r", "l", "s", "m", "t", "ck", "nd"};
  std::string word;
  for (int syllables = random->Between(2, 3); syllables > 0; --syllables) {
    word += absl::StrCat(Text(random->Pick(kOnsets)), Text(random->Pick(kVowels)));
  }
  word += Text(random->Pick(kCodas));
  word[0] = static_cast<char>(word[0] - 'a' + 'A');
  return word;
}

const Words& Characters() {
  static const Words kCharacters = {
      "安", "宝", "北", "波", "春", "翠", "达", "德", "东", "恩", "芳", "飞", "峰", "福", "光", "桂", "国", "海", "汉",
      "浩", "和", "红", "华", "惠", "佳", "建", "江", "杰", "金", "晶", "静", "军", "凯", "康", "兰", "乐", "丽", "林",
      "玲", "龙", "梅", "美", "明", "宁", "鹏", "平", "青", "清", "庆", "荣", "瑞", "山", "胜", "书", "思", "松", "泰",
      "天", "婷", "万", "伟", "文", "西", "祥", "晓", "新", "星", "秀", "旭", "雪", "雅", "燕", "阳", "依", "义", "英",
      "永", "勇", "宇", "玉", "月", "云", "泽", "志", "中", "竹", "子", "紫", "河", "湖", "桥", "石", "南", "长", "古"};
  return kCharacters;
}

std::string ChineseWord(Random* random, int characters) {
  std::string word;
  while (characters-- > 0) word += Text(random->Pick(Characters()));
  return word;
}

std::string EnglishPerson(Random* random) {
  static const Words kFirst = {"Anna",  "Ben",   "Clara", "David",  "Emma",  "Felix", "Grace", "Henry",
                               "Iris",  "Jack",  "Kate",  "Leo",    "Maria", "Nick",  "Olga",  "Paul",
                               "Rosa",  "Sam",   "Tina",  "Victor", "Wendy", "Laura", "Peter", "Julia",
                               "Oscar", "Helen", "Frank", "Mia",    "Simon", "Nora",  "Tom",   "Lucy",
                               "Mark",  "Elena", "Chris", "Sofia",  "Alex",  "Ruth",  "Hugo",  "Zoe"};
  static const Words kLast = {"Miller", "Brown", "Novak",  "Garcia", "Weber",  "Rossi",   "Kim",    "Singh",
                              "Clark",  "Evans", "Moore",  "Hall",   "Lopez",  "Fischer", "Dubois", "Larsen",
                              "Tanaka", "Silva", "Young",  "Baker",  "Carter", "Reed",    "Stone",  "Wagner",
                              "Jensen", "Costa", "Murphy", "Walker", "Price",  "Lane"};
  switch (random->Below(6)) {
    case 0:
      return Text(random->Pick(kFirst));
    case 1:
      return MadeUpWord(random);
    case 2:
      return absl::StrCat(MadeUpWord(random), " ", Text(random->Pick(kLast)));
    case 3:
      return absl::StrCat(Text(random->Pick(Words{"Doctor", "Mister", "Uncle", "Aunt", "Coach"})), " ",
                          Text(random->Pick(kLast)));
    default:
      return absl::StrCat(Text(random->Pick(kFirst)), " ", Text(random->Pick(kLast)));
  }
}

std::string ChinesePerson(Random* random) {
  static const Words kSurnames = {"王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "胡",
                                  "朱", "高", "林", "何", "郭", "马", "罗", "梁", "宋", "郑", "谢", "韩", "唐"};
  static const Words kTitles = {"经理", "老师", "医生", "先生", "女士", "阿姨", "叔叔", "师傅"};
  const std::string surname = Text(random->Pick(kSurnames));
  if (random->Percent(25)) return surname + Text(random->Pick(kTitles));
  return surname + ChineseWord(random, random->Between(1, 2));
}

}  // namespace

std::string DrawPerson(Composer* composer) {
  Random* random = &composer->random();
  return composer->DrawEntity([&] { return composer->english() ? EnglishPerson(random) : ChinesePerson(random); });
}

const std::vector<std::string_view>& FamiliarContacts(Language language) {
  static const Words kEnglish = {"mom",     "dad",         "my wife",   "my husband", "my sister",  "my brother",
                                 "grandma", "my manager",  "my doctor", "my mother",  "my father",  "grandpa",
                                 "my son",  "my daughter", "my boss",   "my partner", "the office", "my neighbor"};
  static const Words kChinese = {"妈妈", "爸爸", "老婆", "老公", "姐姐", "弟弟", "奶奶", "爷爷", "妹妹",
                                 "哥哥", "老板", "女儿", "儿子", "外婆", "外公", "邻居", "同事", "家里"};
  return language == Language::kEnglish ? kEnglish : kChinese;
}

std::string DrawContact(Composer* composer) {
  Random& random = composer->random();
  if (random.Percent(14)) return Text(random.Pick(FamiliarContacts(composer->language())));
  return DrawPerson(composer);
}

std::string DrawPlace(Composer* composer) {
  Random* random = &composer->random();
  static const Words kNames = {"Oak",     "River",  "Lincoln", "Market", "Church", "Hill",  "Garden",
                               "Station", "Lake",   "Castle",  "Harbor", "Maple",  "Union", "Bridge",
                               "Spring",  "Temple", "Crystal", "Summit", "Park",   "Forest"};
  static const Words kStreets = {"Street", "Avenue", "Road", "Square", "Lane", "Boulevard"};
  static const Words kSites = {"Airport", "Museum",  "Hospital", "Hotel",   "University", "Mall",
                               "Stadium", "Library", "Theater",  "Station", "Zoo",        "Cafe"};
  static const Words kChineseRoads = {"路", "街", "大道", "广场", "巷"};
  static const Words kChineseSites = {"机场", "火车站", "大学",   "公园",   "医院",
                                      "酒店", "商场",   "博物馆", "体育馆", "小区"};
  return composer->DrawEntity([&]() -> std::string {
    if (!composer->english()) {
      const std::string name = ChineseWord(random, random->Between(2, 3));
      if (random->Percent(45)) return name + Text(random->Pick(kChineseSites));
      return name + Text(random->Pick(kChineseRoads)) +
             (random->Percent(35) ? absl::StrCat(random->Between(1, 199), "号") : "");
    }
    const std::string name = random->Percent(40) ? MadeUpWord(random) : Text(random->Pick(kNames));
    switch (random->Below(4)) {
      case 0:
        return absl::StrCat(random->Between(1, 199), " ", name, " ", Text(random->Pick(kStreets)));
      case 1:
        return absl::StrCat(name, " ", Text(random->Pick(kStreets)));
      case 2:
        return MadeUpWord(random);
      default:
        return absl::StrCat(name, " ", Text(random->Pick(kSites)));
    }
  });
}

std::string DrawSong(Composer* composer) {
  Random* random = &composer->random();
  static const Words kFirst = {"Blue",   "Golden",   "Silent",   "Lonely", "Dancing", "Broken", "Summer",
                               "Winter", "Midnight", "Electric", "Wild",   "Sweet",   "Lost",   "Burning",
                               "Paper",  "Velvet",   "Silver",   "Hidden", "Distant", "Crazy"};
  static const Words kSecond = {"River",  "Heart", "Night",  "Dreams", "Rain", "Road",   "Sky",
                                "Moon",   "Fire",  "Train",  "Eyes",   "Star", "City",   "Dance",
                                "Garden", "Smile", "Shadow", "Ocean",  "Love", "Morning"};
  static const Words kChineseFirst = {"红色", "夜空", "夏天", "远方", "孤独", "星光",
                                      "温柔", "自由", "昨日", "海边", "青春", "梦里"};
  static const Words kChineseSecond = {"玫瑰", "列车", "月亮", "歌声", "晚风", "记忆",
                                       "雨天", "眼睛", "告白", "花火", "城市", "微笑"};
  return composer->DrawEntity([&]() -> std::string {
    if (!composer->english()) {
      if (random->Percent(35)) return ChineseWord(random, random->Between(2, 4));
      return absl::StrCat(Text(random->Pick(kChineseFirst)), random->Percent(60) ? "的" : "",
                          Text(random->Pick(kChineseSecond)));
    }
    if (random->Percent(30)) return absl::StrCat(MadeUpWord(random), " ", Text(random->Pick(kSecond)));
    return absl::StrCat(Text(random->Pick(kFirst)), " ", Text(random->Pick(kSecond)));
  });
}

}  // namespace updraft::cockpit
