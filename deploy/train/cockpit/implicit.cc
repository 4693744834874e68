// Wishes that name no device: "I'm freezing" means a warmer cabin. Each wish has one agreed answer.
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "deploy/train/cockpit/draft.h"

namespace updraft::cockpit {
namespace {

struct Setting {
  std::string_view intent;
  unsigned zones;  // kZoneNone for signals without zones; ignored when the wish is somebody's
  std::string_view value;
};

struct Wish {
  std::string_view english;  // {who} is "i'm" or "the kids in the back are"
  std::string_view chinese;
  std::vector<Setting> settings;
  std::string_view destination = {};  // a navigation call instead
};

const std::vector<Wish>& Wishes() {
  static const auto* wishes = new std::vector<Wish>{
      {"{who} [so|really|a bit|quite|pretty|getting|way too|totally|] [cold|freezing|chilly|frozen|shivering|icy cold] "
       "[in here|today|this morning|right now|]",
       "{who}[好|有点|真的|太|非常|快|实在][冷|冻僵了|冷得发抖|凉|冻死了][了|啊|]",
       {{"temperature", 0, "25"}}},
      {"[it's|it is|this car is|the cabin is|it feels|the air is] [so|really|a bit|quite|pretty|way too|too|] "
       "[cold|freezing|chilly|icy] [in here|inside|today|in this car|]",
       "[车里|车内|里面|这里|空调][好|有点|真的|太|非常|实在][冷|凉|冷得很][了|啊|]",
       {{"temperature", kDriver, "25"}}},
      {"[make it|get it|i want it|turn it|can we have it|i'd like it] [warmer|hotter|less cold|a bit warmer|a little "
       "warmer|nice and warm] [in here|inside|please|for me|]",
       "[调|弄|开|让车里|车里][暖和|热|高|暖][一点|点|一些|些][吧|啊|]",
       {{"temperature", kDriver, "25"}}},
      {"[it's|it is|this car is|the cabin is|it feels|the air is] [so|really|a bit|quite|pretty|way too|too|] "
       "[hot|warm|boiling|like an oven] [in here|inside|today|in this car|]",
       "[车里|车内|里面|这里|空调][好|有点|真的|太|非常|实在][热|闷热|热得很][了|啊|]",
       {{"temperature", kDriver, "19"}}},
      {"[make it|get it|i want it|turn it|can we have it|i'd like it] [cooler|colder|less hot|a bit cooler|a little "
       "colder|nice and cool] [in here|inside|please|for me|]",
       "[调|弄|开|让车里|车里][凉快|冷|低|凉][一点|点|一些|些][吧|啊|]",
       {{"temperature", kDriver, "19"}}},
      {"[turn|crank|put] [it|the music|the sound|the radio] [up|louder|up a bit|a little louder] [please|now|for me|]",
       "[音乐|声音|收音机][大|响|大声][一点|点|一些|些][吧|啊|]",
       {{"volume", 0, "60"}}},
      {"[turn|put|bring] [it|the music|the sound|the radio] [down|quieter|down a bit|a little softer] [please|now|for "
       "me|]",
       "[音乐|声音|收音机][小|轻|小声][一点|点|一些|些][吧|啊|]",
       {{"volume", 0, "15"}}},
      {"[navigate|take me|drive|bring me|drive me|let's go|i want to go|route me|guide me] home[|| now| please| by the "
       "fastest way]",
       "[导航|带我|送我|开车|我要|我想|现在]回家[||吧|，走最快的路]",
       {},
       "home"},
      {"[navigate|take me|drive|bring me|drive me|let's go|i want to go|i have to get] [to work|to the office|to my "
       "office][|| now| please]",
       "[导航|带我|送我|开车|我要|我想|现在]去[公司|上班|办公室][||吧]",
       {},
       "work"},
      {"[navigate|take me|drive|bring me|drive me|let's go|i want to go|i have to get] to the airport[|| now| please| "
       "quickly]",
       "[导航|带我|送我|开车|我要|我想|现在]去机场[||吧|，快一点]",
       {},
       "airport"},
      {"[navigate|take me|drive|bring me|drive me|let's go|i want to go|i have to get] to the [train station|railway "
       "station][|| now| please]",
       "[导航|带我|送我|开车|我要|我想|现在]去[火车站|高铁站][||吧]",
       {},
       "train station"},
      {"{who} [so|really|a bit|quite|pretty|getting|way too|totally|] [hot|sweating|boiling|too warm|roasting|melting] "
       "[in here|today|this afternoon|right now|]",
       "{who}[好|有点|真的|太|非常|快|实在][热|闷热|热死|出汗|热得难受][了|啊|]",
       {{"temperature", 0, "19"}}},
      {"[my|the] [hands|fingers|palms] [are|feel|are getting] [cold|freezing|frozen|numb|icy] [on the wheel|on the "
       "steering wheel|while driving|]",
       "[我的|我|]手[好|有点|快|太|都][冷|冻僵了|冰|麻了|冻住了][，握方向盘难受|，摸方向盘好冷|]",
       {{"steering_heat", 0, "60"}}},
      {"[my|this] [bottom|bum|seat|backside|chair] [is|feels|got] [freezing|ice cold|a block of ice|so "
       "cold|frosty] [today|to sit on|this morning|]",
       "[我的屁股|屁股|座位|坐垫|椅子][好|有点|太|真|像冰一样][冷|凉|冰][啊|了|]",
       {{"seat_heating", kDriver, "60"}}},
      {"[my|my lower|my poor] back [hurts|is aching|is stiff|is killing me|is sore|is tired] [after this drive|from "
       "driving|today|a lot|]",
       "[我的|我|][腰|背|后背|腰背][好|有点|太|很|真][酸|疼|累|僵|痛][啊|了|]",
       {{"massage", kDriver, "50"}}},
      {"[my back is|my shirt is|i am|i'm] [sweaty against|sticking to|glued to|soaked on] [the seat|this seat|the "
       "leather|the chair]",
       "[我的|我|][后背|背上|衣服][都|全|好像][湿透了|出汗了|粘在座椅上了|都是汗]",
       {{"seat_cooling", kDriver, "-60"}}},
      {"[the|my] [windshield|windscreen|front glass|front window] [is|is all|keeps] [fogging up|fogged|misting "
       "up|steamed up|foggy] [again|badly|]",
       "[前挡|前挡风玻璃|前面的玻璃|前风挡][又|全|都|好像][起雾了|雾蒙蒙的|有雾气|蒙上雾了]",
       {{"front_defrost", 0, "true"}}},
      {"[i can't see|i see nothing|i can hardly see|nothing to see] [through|out of] the [rear window|back window|rear "
       "glass] [it's fogged|it's iced|because of ice|because of mist|at all]",
       "[后挡|后挡风玻璃|后窗|后面的玻璃][又|全|都|好像][起雾了|看不清|结冰了|蒙上雾了]",
       {{"rear_defrost", 0, "true"}}},
      {"[it stinks|something smells|there's a bad smell|it smells awful|what a stench] [outside|from that truck|from "
       "the truck in front|of exhaust|from the road]",
       "[外面|前车|前面的卡车|路上][好|有股|太|真][臭|尾气味|难闻|呛人的味道][啊|了|]",
       {{"recirculation", 0, "true"}}},
      {"[it's|the air is|it feels] [so|really|a bit|quite|very|] [stuffy|stale|sticky|airless] [in here|inside|in this "
       "car|]",
       "[车里|车内|里面|这里][空气|][好|有点|太|真|很][闷|不新鲜|浑浊|憋闷][啊|了|]",
       {{"recirculation", 0, "false"}}},
      {"[it's too dark|i dropped something|i can't find my keys|i can't see a thing|it's pitch dark|where are my "
       "glasses] [in here|inside the car|in the cabin|in this car]",
       "[车里|车内|里面][太黑了|好暗|什么都看不见|看不清|黑乎乎的][，我找不到钥匙|，东西掉了|，找不到手机|]",
       {{"dome", 0, "true"}}},
      {"[the sun|sunlight|the light] [is burning|is blinding me|comes in|is beating down] [from above|through the "
       "roof|through the glass roof|on my head]",
       "[头顶|车顶|上面|天窗][的太阳|的阳光|的光线][好|太|真|有点][晒|刺眼|毒|烈][啊|了|]",
       {{"sunroof_shade", 0, "100"}}},
      {"[it's|it is|it just] [starting to rain|beginning to rain|drizzling|started raining|raining a little] "
       "[outside|now|again|]",
       "[外面|天|好像][开始|又|][下雨了|下小雨了|飘雨了|下起雨来了]",
       {{"wiper_front", 0, "\"RAIN_SENSOR\""}}},
      {"[it's|it is] [pouring|raining cats and dogs|bucketing down|raining so hard] [outside|now|i see nothing|]",
       "[外面|这雨|雨][下得好大|下得太大了|像倒水一样|大得看不见路|倾盆大雨]",
       {{"wiper_front", 0, "\"FAST\""}}},
      {"[there is|there's|we have|look at] [thick|dense|heavy|so much] fog [ahead|on the road|outside|everywhere|out "
       "there]",
       "[外面|前面|路上|前方][雾好大|大雾|雾太浓了|起大雾了|全是雾]",
       {{"fog_front", 0, "true"}, {"fog_rear", 0, "true"}}},
      {"[the road is|this road is|it's] [so dark|pitch black|unlit|completely dark] [and empty|and nobody is "
       "ahead|with no cars around|and there is no traffic]",
       "[前面|这条路|路上][好黑|太暗了|没有路灯|黑漆漆的]，[也没有车|没有对面来车|一辆车都没有]",
       {{"high_beam", 0, "true"}}},
      {"[i'm blinding|i am dazzling|we are blinding|i might dazzle] [the other drivers|oncoming traffic|the car in "
       "front|the car coming towards us]",
       "[我|我的灯|我们][晃到|照到|刺到|影响到][对面的车|对向车了|前车|别的司机][了|]",
       {{"high_beam", 0, "false"}}},
      {"[it's|this is|that's] [way too|too|so|far too|much too] loud [in here|for me|i can't hear myself think|i have "
       "a headache|]",
       "[声音|音乐|里面][太|好|有点|实在太][吵|大声|响][了|啊]",
       {{"volume", 0, "15"}}},
      {"i [can hardly|can't|can barely|cannot] hear the [music|song|radio|singer] [at all|from here|]",
       "[我|]听不[见|清|到][音乐|歌|收音机|歌声][了|啊|]",
       {{"volume", 0, "60"}}},
      {"[the road|it|the street] [is|looks] [icy|slippery with snow|covered in snow|snowy|full of ice] "
       "[ahead|today|here|]",
       "[路面|路上|前面|地上][结冰了|全是雪|都是冰|积雪了|下雪打滑]",
       {{"drive_mode", 0, "\"SNOW\""}}},
      {"[i feel like|i'm in the mood for|let's have|time for] [some fun|driving fast|a sporty ride|some real driving] "
       "[today|on this road|]",
       "[我想|想要|今天想|来点][激情驾驶|刺激一点的|爽快地开|开得带劲点|飙一下]",
       {{"drive_mode", 0, "\"SPORT\""}}},
      {"[i want to|we should|let's|i need to] [save energy|save power|stretch the battery|use less power] [on this "
       "trip|today|from now on|]",
       "[我想|我们要|这趟要|尽量][省电|节约电量|省着点电|少用电][一点|一些|]",
       {{"drive_mode", 0, "\"ECONOMY\""}}},
      {"[the kids|the children|my son|the little one] [keep|keeps|won't stop|always] playing with the [windows|window "
       "buttons|window switches]",
       "[孩子|小朋友|宝宝|小孩][一直|老是|总|又][在玩车窗|按窗户按钮|玩窗户开关|乱按车窗]",
       {{"child_lock", 0, "true"}}},
      {"the [screen|display] [is|is way|is much] too bright [at night|in the dark|for my eyes|right now|]",
       "[屏幕|显示屏|中控屏][太|好|有点][亮|刺眼|晃眼][了|啊]",
       {{"brightness", 0, "30"}}},
      {"i can't [read|see] the [screen|display|map] [in this sun|in the sunlight|it's too dim|it's too dark]",
       "[屏幕|显示屏|中控屏][太|好|有点][暗|黑|看不清][了|啊]",
       {{"brightness", 0, "100"}}},
      {"[this area|this place|this neighbourhood|the street here] [looks|feels|seems] [dangerous|unsafe|scary|not "
       "safe]",
       "[这里|这一带|这个地方|外面][感觉|看起来|好像|有点][不安全|危险|吓人|治安不好]",
       {{"lock", kEverywhere, "true"}}},
      {"[my hands are full|i'm carrying|i have] [of bags|groceries|of shopping|heavy boxes] and [i am at the back of "
       "the car|i'm standing behind the car|want to load them]",
       "[我手里|我两只手|我这边][拿满了|都是|提着][东西|购物袋|行李|箱子]，[要放车上|站在车后面|想装车]",
       {{"trunk", 0, "true"}}},
      {"[this gap is|this garage is|it is|the street is] [very|so|too|really] [narrow|tight] [for the mirrors|on both "
       "sides|to get through|i might scrape the mirrors]",
       "[这里|车位|这条巷子|车库][好|太|有点|真][窄|挤][了，镜子要刮到|，怕蹭到镜子|，两边要擦到]",
       {{"mirror_fold", kFront, "true"}}},
      {"[my|the] [side mirrors|wing mirrors|outside mirrors] [are|are all|got] [covered in ice|frozen|wet|full of "
       "drops|iced over]",
       "[后视镜|两边镜子|外后视镜][上|][都是水|结冰了|全是水珠|有霜|起雾了]",
       {{"mirror_heat", kFront, "true"}}},
      {"[it's so|it is so|it's too|so] [quiet|silent|boring] [in here|without music|i need some entertainment|on this "
       "drive]",
       "[车里|路上|里面][好|太|有点][安静|无聊|冷清][了|啊]",
       {{"media_action", 0, "\"PLAY\""}}},
      {"i [don't like|hate|can't stand|am tired of] [this song|this tune|that track|this one]",
       "[我|][不喜欢|讨厌|听腻了|不想听][这首歌|这首|这个歌|这曲子]",
       {{"media_action", 0, "\"SKIP_FORWARD\""}}},
      {"[i'm|i am|we are|the kids are] [so|really|getting|pretty|very|] [hungry|starving|famished] [now|already|]",
       "[我|我们|肚子|孩子][好|有点|太|真的|快][饿|饿死][了|啊]",
       {},
       "restaurant"},
      {"[i need|i could use|i would love|time for] [a coffee|some coffee|a cup of coffee|an espresso] [now|badly|]",
       "[我|我们|][想|要|需要|好想][喝咖啡|来杯咖啡|喝杯咖啡|咖啡提神]",
       {},
       "cafe"},
      {"[the battery|the car|our battery] [is|is getting|is nearly|is almost] [empty|low|flat|dead|running out] [i "
       "think|soon|]",
       "[电|电池|车子的电|电量][快|马上|好像][没了|用完了|不够了|耗尽了]",
       {},
       "charging station"},
      {"[i|we] [need|have|really need|urgently have] to [pee|use the restroom|go to the toilet|use the bathroom]",
       "[我|我们|孩子][想|要|急着|憋不住了要][上厕所|去洗手间|去卫生间|方便一下]",
       {},
       "restroom"},
  };
  return *wishes;
}

const Intent* IntentById(std::string_view id) {
  for (const Intent& intent : Intents()) {
    if (intent.id == id) return &intent;
  }
  return &Intents().front();  // the tests hold every wish to the table
}

}  // namespace

std::vector<int> WishedTenths(std::string_view intent) {
  std::vector<int> tenths;
  for (const Wish& wish : Wishes()) {
    for (const Setting& setting : wish.settings) {
      if (setting.intent != intent) continue;
      const nlohmann::json value = nlohmann::json::parse(setting.value);
      if (value.is_number()) tenths.push_back(std::abs(static_cast<int>(std::lround(10 * value.get<double>()))));
    }
  }
  return tenths;
}

std::optional<Draft> DraftImplicit(Composer* composer) {
  Random& random = composer->random();
  const Wish& wish = random.Pick(Wishes());
  const std::string_view pattern = composer->english() ? wish.english : wish.chinese;
  Draft draft;
  draft.imperative = false;
  std::string who;
  unsigned whose = kZoneNone;
  if (pattern.find("{who}") != std::string_view::npos) {
    static const std::vector<unsigned> kWhose = {kDriver, kDriver, kPassenger, kRear};
    whose = random.Pick(kWhose);
    if (composer->english()) {
      who = whose == kDriver      ? composer->Say("[i'm|i am|i feel]")
            : whose == kPassenger ? composer->Say(
                                        "[my wife|my husband|my friend|my passenger|my colleague] [next to me|in "
                                        "front|beside me] [is|feels]")
                                  : composer->Say(
                                        "[the kids|the children|our guests|the people|my parents] [in the "
                                        "back|behind|in the rear] [are|feel]");
    } else {
      who = whose == kDriver ? composer->Say("[我|我这里|我觉得|感觉]")
            : whose == kPassenger
                ? composer->Say("[副驾|坐副驾|旁边|我旁边][的朋友|的老婆|的同事|的人|的乘客][觉得|说|]")
                : composer->Say("[后排|后座|后面|坐后面][的孩子|的小朋友|的人|的乘客|的爸妈][觉得|说|都说|]");
    }
  }
  draft.core = composer->Say(pattern, {{"who", who}});
  for (const Setting& setting : wish.settings) {
    const Intent* intent = IntentById(setting.intent);
    const nlohmann::json value = nlohmann::json::parse(setting.value);
    SetInZones(*intent, whose != kZoneNone ? whose : setting.zones, value, &draft.meaning.set);
    if (draft.say.empty()) draft.say = ReplyFor(*intent, value, composer->language());
  }
  if (!wish.destination.empty()) {
    draft.meaning.call["name"] = "navigate";
    draft.meaning.call["to"] = std::string(wish.destination);
    draft.say = composer->english() ? "Starting the route." : "开始导航。";
  }
  return draft;
}

}  // namespace updraft::cockpit
