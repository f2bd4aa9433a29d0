/**
 * Fetches Apache Kafka's own jars with Maven, as this machine's user has set it up, for tests that run a real one. They are kept in the
 * user's cache folder, so that they are fetched once a machine: 44 MB, 23 s. `--check` only says, by its exit code, whether a Kafka is
 * there, fetched or in `KAFKA_HOME`.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

const timeoutMs = 300_000;
const { version } = JSON.parse(readFileSync(new URL("servers.json", import.meta.url), "utf8")).find(
  ({ name }) => name === "Kafka",
);
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "rungs");
const home = join(cache, `kafka-${version}`);
const isThere = [process.env.KAFKA_HOME ?? "", home].some((folder) => {
  const libs = join(folder, "libs");
  return folder !== "" && existsSync(libs) && readdirSync(libs).some((name) => /^kafka_.*\.jar$/.test(name));
});

if (isThere) process.exit(0);
if (process.argv.includes("--check")) process.exit(1);

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rungs</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${version}</version></dependency>
    <!-- So that it says why it does not start. -->
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
`;

mkdirSync(cache, { recursive: true });
const folder = mkdtempSync(join(cache, "fetching-"));
try {
  writeFileSync(join(folder, "pom.xml"), pom);
  const libs = join(folder, "libs");
  const { status, error, stderr, stdout } = spawnSync(
    "mvn",
    ["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", `-DoutputDirectory=${libs}`],
    { cwd: folder, timeout: timeoutMs, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
  );
  if (status !== 0) {
    const why = error?.message ?? `${stdout}${stderr}`.trim().split("\n").slice(0, 3).join("\n");
    process.stderr.write(`Kafka ${version} could not be fetched with Maven: ${why}\n`);
    process.exitCode = 1;
  } else if (!existsSync(home)) renameSync(folder, home);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
