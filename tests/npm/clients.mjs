// Asks the service at URL by clients of npm and prints what they say, as JSON: node clients.mjs URL
import fs from "node:fs";
import * as deepl from "deepl-node";
import { Translate } from "translate";

const [url, file, target] = process.argv.slice(2);
const said = {};

const libre = Translate({ engine: "libre", url: `${url}/translate`, key: "any key" });
said.libre = await libre("Good morning & <b>!", { from: "en", to: "de" });
said.libreError = await libre("a", { from: "en", to: "fr" }).catch((error) => String(error.message));

const client = new deepl.Translator("any key", { serverUrl: url });
const results = await client.translateText(["The house is big.", "Das Haus ist groß."], null, "de");
said.deepl = results.map((each) => [each.text, each.detectedSourceLang, each.billedCharacters]);
said.html = (await client.translateText("<p>One <b>two</b></p>", "en", "de", { tagHandling: "html" })).text;
said.languages = (await client.getTargetLanguages()).map((each) => [each.code, each.name]);
said.usage = (await client.getUsage()).character.count;
said.deeplError = await client.translateText("a", "en", "zh").catch((error) => String(error.message));
await client.translateDocument(file, target, "en", "de");
said.document = fs.readFileSync(target, "utf8");

console.log(JSON.stringify(said));
