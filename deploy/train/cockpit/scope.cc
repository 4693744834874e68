// What the car does not do: polite refusal. Some requests look as if they were in scope: the oven at home has a
// temperature too, and safety systems are not for switching off.
#include "deploy/train/cockpit/draft.h"

namespace updraft::cockpit {
namespace {

using Words = std::vector<std::string_view>;

struct Topic {
  std::string_view english, chinese;  // {x}: a thing of the list
  Words english_things, chinese_things;
};

const std::vector<Topic>& Topics() {
  static const Words kAppliances = {
      "oven",          "dishwasher",     "washing machine", "kettle",      "toaster",        "tv",
      "lawn mower",    "vacuum cleaner", "fridge",          "rice cooker", "coffee machine", "dryer",
      "garage heater", "aquarium light", "microwave",       "sauna",       "pool pump",      "doorbell",
      "printer",       "alarm system"};
  static const Words kChineseAppliances = {"烤箱",   "洗碗机", "洗衣机", "电水壶", "电视",   "扫地机器人", "冰箱",
                                           "电饭煲", "咖啡机", "烘干机", "微波炉", "热水器", "空气净化器", "投影仪",
                                           "打印机", "门铃",   "加湿器", "电风扇", "台灯",   "鱼缸灯"};
  static const Words kFood = {"pizza",     "sushi",        "burgers",         "noodles",   "flowers",
                              "shoes",     "a phone case", "two tickets",     "a book",    "a jacket",
                              "dumplings", "salad",        "a gift",          "batteries", "diapers",
                              "a sofa",    "headphones",   "a birthday cake", "socks",     "a tent"};
  static const Words kChineseFood = {"披萨",   "寿司",   "汉堡", "面条", "鲜花", "鞋子", "手机壳",
                                     "电影票", "一本书", "外套", "饺子", "沙拉", "礼物", "电池",
                                     "尿布",   "沙发",   "耳机", "蛋糕", "袜子", "帐篷"};
  static const Words kCountries = {"France", "Japan", "Brazil", "Kenya",  "Canada", "Peru",   "Norway", "Egypt",
                                   "India",  "Spain", "Chile",  "Greece", "Turkey", "Poland", "Cuba",   "Nepal"};
  static const Words kChineseCountries = {"法国", "日本",   "巴西", "肯尼亚", "加拿大", "秘鲁", "挪威", "埃及",
                                          "印度", "西班牙", "智利", "希腊",   "土耳其", "波兰", "古巴", "尼泊尔"};
  static const Words kSubjects = {"cats",    "dragons", "the moon", "my boss", "penguins", "politics",
                                  "love",    "robots",  "pirates",  "school",  "football", "dinosaurs",
                                  "doctors", "ghosts",  "aliens",   "bees"};
  static const Words kChineseSubjects = {"猫",   "龙",   "月亮", "老板", "企鹅", "政治", "爱情",   "机器人",
                                         "海盗", "学校", "足球", "恐龙", "医生", "鬼",   "外星人", "蜜蜂"};
  static const Words kSafety = {"airbags",
                                "abs",
                                "brakes",
                                "stability control",
                                "seat belt warning",
                                "speed limiter",
                                "emergency braking",
                                "lane assist",
                                "tire pressure warning",
                                "collision warning",
                                "traction control",
                                "blind spot monitor",
                                "lane departure warning",
                                "driver monitoring",
                                "fatigue warning",
                                "speed warning",
                                "seat belts",
                                "hill hold",
                                "crash detection",
                                "backup camera"};
  static const Words kChineseSafety = {"安全气囊",   "防抱死系统", "刹车",         "车身稳定系统", "安全带提醒",
                                       "限速器",     "紧急制动",   "车道保持",     "胎压报警",     "碰撞预警",
                                       "牵引力控制", "盲区监测",   "车道偏离预警", "驾驶员监控",   "疲劳提醒",
                                       "超速报警",   "安全带",     "坡道辅助",     "碰撞检测",     "倒车影像"};
  static const Words kActs = {"steer",      "brake",        "park",    "overtake",    "accelerate",
                              "drive home", "change lanes", "reverse", "turn around", "merge"};
  static const Words kChineseActs = {"打方向", "刹车", "停车入库", "超车", "加速",
                                     "开回家", "变道", "倒车",     "掉头", "并线"};
  static const Words kHealth = {"a headache", "fever",  "a sore throat", "back pain", "an allergy",
                                "insomnia",   "a cold", "a rash",        "toothache", "stress"};
  static const Words kChineseHealth = {"头疼", "发烧", "嗓子疼", "腰疼", "过敏",
                                       "失眠", "感冒", "皮疹",   "牙疼", "压力大"};
  static const Words kFinance = {"gold",       "bitcoin",     "oil",    "the dollar", "tech shares",
                                 "my savings", "real estate", "silver", "the euro",   "car shares"};
  static const Words kChineseFinance = {"黄金",     "比特币", "原油", "美元", "科技股",
                                        "我的存款", "房地产", "白银", "欧元", "汽车股"};
  static const auto* topics = new std::vector<Topic>{
      {"[tell me|tell us|do you know|make up|give me] [a joke|a story|a riddle|a poem|a fun fact|a fairy tale] about "
       "{x}",
       "[讲个|说个|给我讲个|编一个|来个]关于{x}的[笑话|故事|谜语|段子|童话]", kSubjects, kChineseSubjects},
      {"[what is|what's|tell me|do you know] the [capital|population|history|president|flag|national dish] of {x}",
       "{x}的[首都|人口|历史|总统|国旗|特色菜][是什么|是谁|有哪些|怎么样|介绍一下]", kCountries, kChineseCountries},
      {"[how is|what is|what's|tell me] the weather in {x} [today|tomorrow|next week|at the weekend]",
       "{x}[今天|明天|下周|周末]天气[怎么样|如何|好不好|会下雨吗]", kCountries, kChineseCountries},
      {"[how is|what is|what's|tell me|check] the weather [like|like outside|like today|today|tomorrow|for tonight|] "
       "[|please|at the moment]",
       "[今天|明天|现在|外面|周末|这几天]天气[怎么样|如何|好不好|会下雨吗|热不热][|啊|呀]", kCountries,
       kChineseCountries},
      {"[what|tell me what] [time is it|day is it today|is your name|do you look like|is the meaning of life|is the "
       "news] [now|please|]",
       "[现在几点了|今天星期几|你叫什么名字|你是谁|你多大了|今天有什么新闻][|啊|呀|，告诉我]", kCountries,
       kChineseCountries},
      {"[tell me|do you know|sing me|read me] [a joke|a story|a song|a poem|something funny|a riddle] [now|please|for "
       "the kids|]",
       "[讲个|给我讲个|说个|来个|编个][笑话|故事|谜语|段子|童话][|吧|听听]", kSubjects, kChineseSubjects},
      {"[order|buy|get me|purchase|find me] {x} [online|from the shop|for tonight|on the internet|for delivery]",
       "[帮我|给我|我要|][网上|][订|买|点|下单]{x}[送到家|外卖|送过来|]", kFood, kChineseFood},
      {"[turn on|turn off|start|switch off|switch on|stop|open|check] the {x} [at home|in my house|in my apartment|in "
       "the kitchen at home]",
       "[打开|关闭|启动|关掉|开一下|检查]家里的{x}", kAppliances, kChineseAppliances},
      {"[set|turn up|turn down|heat] the {x} [at home|in my house|in my apartment] to [thirty|fifty|the maximum|a "
       "hundred and eighty] degrees",
       "把家里的{x}[调到|设到|加热到][三十|五十|一百八十|最高]度", kAppliances, kChineseAppliances},
      {"[disable|switch off|turn off|deactivate|override|kill] the {x} [while driving|on the highway|completely|for "
       "good|right now]",
       "[开车时|行驶中|彻底|永久|][关闭|关掉|禁用|停用|解除]{x}", kSafety, kChineseSafety},
      {"[can you {x} for me|please {x} by yourself|you {x} now|{x} on your own|i want you to {x} for me]",
       "[你自己{x}|车子自己{x}|自己{x}吧|替我{x}|帮我自动{x}]", kActs, kChineseActs},
      {"[what helps against|what can i take for|i have|what should i do about|which medicine is good for] {x} "
       "[doctor|what medicine do i need|can you diagnose me|and need medical advice]",
       "[|我|孩子|最近|要是]{x}[|了|得厉害|好几天了|老不好][，|][吃什么药|怎么治|看什么科|要不要去看医生|怎么缓解|"
       "怎么办]",
       kHealth, kChineseHealth},
      {"[should i|is it smart to|is it time to] [buy|sell|invest in] {x} [now|this year|today]",
       "[现在|今年|今天][该不该|适合|要不要][买|卖|投资]{x}", kFinance, kChineseFinance},
      {"[write|compose|draft|finish] [an email|a letter|a report|an essay|a speech] about {x}",
       "[写|帮我写|起草|代写]一[封邮件|封信|份报告|篇文章|篇演讲稿]，[关于|主题是]{x}", kSubjects, kChineseSubjects},
      {"[explain|teach me|help me with|solve] [the homework|the lesson|the math|the exam question] about {x}",
       "[解释|教我|帮我做|讲讲]关于{x}的[作业|课程|数学题|考试题]", kSubjects, kChineseSubjects},
      {"[book|reserve|find me] [a flight|a hotel|a holiday|a train ticket|an apartment] [to|in] {x}",
       "[订|预订|帮我订|找][一张去|一个去|]{x}的[机票|酒店|火车票|旅行团]", kCountries, kChineseCountries},
      {"[who won|who will win|what was the score of] the [game|match|final|championship] [in|against] {x}",
       "[谁赢了|比分多少|谁会赢]，[和|在]{x}的[比赛|决赛|冠军赛|球赛]", kCountries, kChineseCountries},
      {"[translate|how do you say|what is] [good morning|thank you|i love you|where is the station|hello friend] "
       "[into|in] the language of {x}",
       "[早上好|谢谢|我爱你|车站在哪里|朋友你好]用{x}话[怎么说|怎么翻译|怎么写]", kCountries, kChineseCountries},
      {"[post|tweet|share|upload] [a photo|something funny|a video|a comment] about {x} [on social media|for my "
       "followers|to my page]",
       "[发|转发|上传|分享][一张|一个]关于{x}的[照片|视频|评论|朋友圈]", kSubjects, kChineseSubjects},
  };
  return *topics;
}

}  // namespace

std::optional<Draft> DraftScope(Composer* composer) {
  Random& random = composer->random();
  const Topic& topic = random.Pick(Topics());
  const bool english = composer->english();
  const Words& things = english ? topic.english_things : topic.chinese_things;
  const std::string thing = composer->DrawEntity([&] { return std::string(random.Pick(things)); });
  Draft draft;
  draft.imperative = false;
  draft.core = composer->Say(english ? topic.english : topic.chinese, {{"x", Protect(thing)}});
  draft.refuse = true;
  draft.say = english ? "Sorry, I can only help with the car." : "抱歉，我只能帮您操作这辆车。";
  return draft;
}

}  // namespace updraft::cockpit
