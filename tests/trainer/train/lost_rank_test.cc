// Ranks of which one fails: why it did is known at once, and the others end after it.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "tests/trainer/train/run_fixture.h"
#include "worker/trainer/checkpoint/checkpoint_verify.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class LostRankTest : public TrainingRunTest {
 protected:
  // Damages a byte of the checkpoint that of two ranks only `rank` looks at.
  static bool DamagePartOf(const std::string& checkpoint, int rank) {
    const std::string path = checkpoint + "/model.safetensors";
    const std::string intact = ReadBytes(path);
    for (size_t at = intact.size(); at-- > 0;) {
      std::string damaged = intact;
      damaged[at] = static_cast<char>(damaged[at] ^ 1);
      std::ofstream(path, std::ios::binary) << damaged;
      if (VerifyCheckpoint(checkpoint, 1 - rank, 2).ok()) {
        return !VerifyCheckpoint(checkpoint, rank, 2).ok();
      }
    }
    return false;
  }
};

TEST_F(LostRankTest, TheReasonOfTheOneThatFailsIsTheJobs) {
  json config = Config("job", 2, 2, 2);
  ASSERT_EQ(Run(config, "first").code, 0);
  config["epoch"] = 2;
  config["resume_from"] = Path("job/checkpoints/step-8");
  ASSERT_TRUE(DamagePartOf(config["resume_from"], 1));

  std::vector<std::string> arguments = Arguments(config, "ranks");
  arguments.insert(arguments.end(), {"--rank", "0"});
  Program first(arguments, /*with_channels=*/true);
  arguments.back() = "1";
  Program second(arguments, /*with_channels=*/true);
  const std::string id = json{{"rendezvous", first.NextLine("rendezvous")}}.dump();
  first.Say(id);
  second.Say(id);
  const json cause = second.NextLine("exit");
  EXPECT_EQ(cause["code"], "CHECKPOINT_CORRUPT");
  EXPECT_THAT(cause["message"].get<std::string>(), HasSubstr("is damaged between bytes"));
  EXPECT_EQ(second.Wait().code, 67);
  EXPECT_EQ(first.NextLine("exit")["code"], "PEER_LOST");
  EXPECT_EQ(first.Wait().code, 82);

  std::filesystem::remove_all(
      Path("job/final"));  // of the first run, where the next would put its own
  config["epoch"] = 3;
  const Finished together = Run(config, "together");
  EXPECT_EQ(together.code, 67);
  EXPECT_THAT(together.output, HasSubstr("rank 1 ended with CHECKPOINT_CORRUPT"));
}

TEST_F(LostRankTest, TheIdToMeetByIsSaidBeforeTheDataIsRead) {
  json config = Config("meet", 2, 2, 2);
  config["train_data"] = Path("nothing");
  std::vector<std::string> arguments = Arguments(config, "meet");
  arguments.insert(arguments.end(), {"--rank", "0"});
  Program program(arguments, /*with_channels=*/true);
  const json rendezvous = program.NextLine("rendezvous");
  ASSERT_FALSE(rendezvous.is_null());
  program.Say(json{{"rendezvous", rendezvous}}.dump());
  EXPECT_EQ(program.NextLine("exit")["code"], "DATA");
}

}  // namespace
}  // namespace switchyard::trainer
