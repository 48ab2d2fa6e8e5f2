import Testing
import MonitorTesting

@testable import Windhover

extension TOMLTable {
    /// A form that tells every value from every other, with the keys sorted: what the oracle prints, too.
    var canonical: String { "{" + entries.map { "\(Self.hex($0.key.name)):\(Self.canonical($0.node.value))" }.sorted().joined(separator: ",") + "}" }

    static func hex(_ text: String) -> String { text.utf8.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() }

    static func canonical(_ value: TOMLValue) -> String {
        switch value {
        case .string(let text): "'\(hex(text))'"
        case .integer(let number): "\(number)"
        case .float(let number): number.isNaN ? "nan" : "f\(String(number.bitPattern, radix: 16))"
        case .boolean(let flag): flag ? "T" : "F"
        case .date: "D"
        case .array(let nodes): "[" + nodes.map { canonical($0.value) }.joined(separator: ",") + "]"
        case .table(let table): table.canonical
        case .tables(let list): "[" + list.tables.map(\.table.canonical).joined(separator: ",") + "]"
        }
    }
}

/// What a document says, or where it is wrong and why: `2:5 message`.
func toml(_ text: String) -> String { toml(Array(text.utf8)) }

func toml(_ bytes: [UInt8]) -> String {
    do { return try TOMLDocument(bytes).root.canonical } catch {
        let place = TOMLPosition(of: error.offset, in: bytes)
        return "\(place.line):\(place.column) \(error.message)"
    }
}

@Suite struct TOMLTests {
    func value(_ text: String) throws -> TOMLValue {
        try #require(try TOMLDocument(Array("v = \(text)\n".utf8)).root["v"]).node.value
    }

    func string(_ text: String) throws -> String? { if case .string(let value) = try value(text) { value } else { nil } }

    @Test func strings() throws {
        #expect(try string(#""a \"b\" \\ \t \u00e9 \U0001F600""#) == "a \"b\" \\ \t é 😀")
        #expect(try string(#"'c:\no "escapes"'"#) == #"c:\no "escapes""#)
        #expect(try string("\"\"") == "")
        #expect(try string("\"\"\"\nfirst\nsecond\"\"\"") == "first\nsecond")
        #expect(try string("\"\"\"a\r\nb\"\"\"") == "a\nb")
        #expect(try string("\"\"\"one \\\n   \n\t two\"\"\"") == "one two")
        #expect(try string("\"\"\"two \"\" and \"\"\"\"\"") == "two \"\" and \"\"")
        #expect(try string("'''it''s '''") == "it''s ")
        #expect(try string("'''\n\\n'''") == "\\n")
    }

    @Test func numbers() throws {
        for (text, number) in [
            ("0", 0), ("+99", 99), ("-17", -17), ("1_000", 1000), ("0xDEAD_beef", 0xDEAD_BEEF), ("0o755", 493), ("0b1101", 13), ("-0", 0),
            ("9223372036854775807", Int64.max), ("-9223372036854775808", Int64.min),
        ] as [(String, Int64)] {
            guard case .integer(number) = try value(text) else {
                Issue.record("\(text)")
                continue
            }
        }
        for (text, number) in [
            ("3.14", 3.14), ("-0.01", -0.01), ("5e+22", 5e22), ("1e06", 1e6), ("6.626e-34", 6.626e-34), ("224_617.445_991_228", 224617.445991228),
            ("inf", .infinity), ("-inf", -.infinity), ("0e0", 0),
        ] as [(String, Double)] {
            guard case .float(number) = try value(text) else {
                Issue.record("\(text)")
                continue
            }
        }
        guard case .float(let number) = try value("nan") else {
            Issue.record("nan")
            return
        }
        #expect(number.isNaN)
    }

    @Test(arguments: [
        "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.999999-07:00", "1979-05-27t07:32:00", "1979-05-27", "07:32:00", "00:32:00.5", "2024-02-29",
    ])
    func datesAndTimes(text: String) throws {
        guard case .date(text) = try value(text) else {
            Issue.record("\(text)")
            return
        }
    }

    @Test func tables() {
        #expect(toml("") == "{}")
        #expect(toml("# nothing\r\n\r\n") == "{}")
        #expect(toml("a.b.c = 1\na.d = 2") == toml("[a]\nd = 2\n[a.b]\nc = 1"))
        #expect(toml("[ a . \"b\" ]\nx = 1") == toml("a = {b = {x = 1}}"))
        #expect(toml("[[t]]\nn = 1\n[t.s]\nm = 2\n[[t]]\n") == toml("t = [{n = 1, s = {m = 2}}, {}]"))
        #expect(toml("[x.y.z]\n[x]\na = 1") == toml("x = {y = {z = {}}, a = 1}"))
        // An inline table between dotted keys does not end their table.
        #expect(toml("a.x = 1\nb = {c = {}}\na.y = 2") == toml("a = {x = 1, y = 2}\nb = {c = {}}"))
        #expect(toml("a = [\n 1, # one\n 2,\n]") == toml("a = [1, 2]"))
    }

    @Test func namesThatLookAlikeAreTwo() {
        #expect(toml("\"\u{E9}\" = 1\n\"e\u{301}\" = 2").hasPrefix("{"))
    }

    @Test(arguments: [
        ("a = 1\nb == 2", "2:4", "value is expected"), ("a = ", "1:5", "end of the file"), ("a", "1:2", "= is expected"),
        ("= 1", "1:1", "key is expected"), ("a = \"x", "1:5", "no end"), ("é = 1", "1:1", "quotation marks"),
        ("\"é\" = yes", "1:7", "quotation marks"), ("a = 1 b = 2", "1:7", "one line"), ("a = 1\na = 2", "2:1", "line 1"),
        ("[t]\n[t]", "2:2", "line 1"), ("[t]\n\n[[t]]", "3:3", "line 1"), ("a = [1, 2", "1:5", "no end"), ("a = [1 2]", "1:8", ", or ]"),
        ("a = {b = 1\n}", "1:11", "one line"), ("a = {b = 1,}", "1:12", "key is expected"), ("[a", "1:3", "] is expected"),
        ("[[a]", "1:5", "]] is expected"), ("a = 01", "1:5", "zero"), ("a = 1__0", "1:5", "no number"), ("a = 0x", "1:5", "no number"),
        ("a = +0x1", "1:5", "no number"), ("a = 1.", "1:5", "no number"), ("a = .5", "1:5", "quotation marks"), ("a = 1.e2", "1:5", "no number"),
        ("a = 9223372036854775808", "1:5", "64 bits"), ("a = 2023-02-29", "1:5", "date"), ("a = 25:00:00", "1:5", "date"),
        ("a = 2023-01-01T", "1:5", "date"), ("a = \"\\q\"", "1:6", "escape"), ("a = \"\\ud800\"", "1:6", "scalar"), ("a = \"\\u12\"", "1:6", "4"),
        ("a = \"\u{1}\"", "1:6", "control"), ("# \u{7F}", "1:3", "control"), ("a.b = 1\na = 2", "2:1", "line 1"),
        ("a = 1\na.b = 2", "2:1", "line 1"), ("a = {}\na.b = 2", "2:1", "nothing can be added"), ("a = {}\n[a.b]", "2:2", "nothing can be added"),
        ("a = [{}]\n[[a]]", "2:3", "line 1"), ("[a]\nb.c = 1\n[a.b]", "3:4", "line 2"), ("[a.b]\nx = 1\n[a]\nb.y = 2", "4:1", "nothing can be added"),
        ("\"\"\"a\"\"\" = 1", "1:1", "one line"), ("a = 'x\n'", "1:5", "no end on its line"), ("a = tru", "1:5", "quotation marks"), ("a = 1\r", "1:6", "one line"),
    ] as [(String, String, String)])
    func mistakesHaveAPlace(text: String, place: String, words: String) {
        let answer = toml(text)
        #expect(answer.hasPrefix(place + " ") && answer.contains(words), "\(text): \(answer)")
        #expect(!answer.contains("\n"))
    }

    @Test func bytesThatAreNoText() {
        #expect(toml(Array("a = 1\nb = \"".utf8) + [0xFF, 0x22]).hasPrefix("2:6 this is not UTF-8"))
        #expect(toml([0x61, 0]).hasPrefix("1:2 "))
        #expect(toml([0xEF, 0xBB, 0xBF] + Array("a = 1".utf8)) == "{61:1}")
        #expect(toml([0xEF, 0xBB, 0xBF] + Array("a = x".utf8)).hasPrefix("1:5 "))
    }

    @Test func depthHasAnEnd() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(toml("a = \(deep)").contains("nested"))
        #expect(toml("a = " + String(repeating: "{b = ", count: 100_000)).contains("nested"))
        #expect(toml("[" + String(repeating: "a.", count: 100_000) + "a]").contains("parts"))
        #expect(toml("a = " + String(repeating: "[", count: 60) + String(repeating: "]", count: 60)).hasPrefix("{"))
        // Many small things take time in proportion.
        #expect(toml(String(repeating: "[[a]]\n", count: 100_000)).hasPrefix("{"))
    }

    static let seeds = [
        """
        [defaults]
        timeout = "30s" # each
        cpus = 0x2
        [[target]]
        name = 'a "b"'
        command = ["make", "-j", '2',
          "x\\u00e9y", # end
        ]
        env = { A = "1", "b.c" = "", d.e.f = [1, [2.5e3]] }
        matrix.kernel = ["linux", "./b"]
        [target.deep."er"]
        when = 1979-05-27T07:32:00Z
        [[target]]
        name = \"\"\"
        two
        lines \\
           joined\"\"\"
        f = -1_0.5
        """,
        """
        a.b.c = 1
        a.b.d = true
        a.e = {}
        [x.y]
        z = '''l'''
        [x]
        y2.q = 08:00:00
        [x.y.w]
        [[l]]
        [[l.m]]
        n = inf
        [l.o]
        p = +nan
        [[l]]
        i = { j = { k.l = 0b1 }, m = [ { }, { n = 1979-01-01 } ] }
        """,
    ]

    /// Python's own parser reads the same documents, and those with slips in them, the same way.
    @Test func agreesWithAnotherParser() throws {
        let script = """
            import sys, struct, tomllib
            def canon(v):
                if isinstance(v, bool): return 'T' if v else 'F'
                if isinstance(v, dict): return '{' + ','.join(sorted(k.encode().hex() + ':' + canon(x) for k, x in v.items())) + '}'
                if isinstance(v, list): return '[' + ','.join(canon(x) for x in v) + ']'
                if isinstance(v, str): return "'" + v.encode().hex() + "'"
                if isinstance(v, int):
                    if not -2**63 <= v < 2**63: raise ValueError
                    return str(v)
                if isinstance(v, float): return 'nan' if v != v else 'f' + format(struct.unpack('>Q', struct.pack('>d', v))[0], 'x')
                return 'D'
            for document in open(sys.argv[1], 'rb').read().split(b'\\0'):
                try: print(canon(tomllib.loads(document.decode())))
                except Exception: print('-')
            """
        let directory = TemporaryDirectory()
        let program = directory.file("oracle.py", script)
        guard let probe = try? HostCommand(["python3", "-c", "import tomllib"]).run(), probe.status == 0 else {
            try Test.cancel("there is no python3 with tomllib here")
        }
        var random = SeededRandom(seed: 2026)
        let alphabet = Array("[]{}.,=\"'#\\ \n\r\t_-+:0123abeuTZ".utf8)
        var documents = Self.seeds.map { Array($0.utf8) }
        for _ in 0..<6000 {
            var document = Array(Self.seeds[random.below(Self.seeds.count)].utf8)
            for _ in 0...random.below(3) {
                let place = random.below(document.count)
                let letter = alphabet[random.below(alphabet.count)]
                switch random.below(4) {
                case 0: document.remove(at: place)
                case 1: document.insert(letter, at: place)
                case 2: document[place] = letter
                default:
                    // A line once more, somewhere else.
                    var lines = document.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { Array($0) }
                    let line = lines[random.below(lines.count)]
                    lines.insert(line, at: random.below(lines.count))
                    document = Array(lines.joined(separator: [UInt8(ascii: "\n")]))
                }
            }
            documents.append(document)
        }
        let file = directory.path + "/documents"
        try HostFile.create(file, with: Array(documents.joined(separator: [0])))
        var command = HostCommand(["python3", program, file])
        command.outputLimit = 64 << 20
        let answers = try command.run().text.split(separator: "\n")
        try #require(answers.count == documents.count)
        var accepted = 0
        var differences = 0
        for (document, answer) in zip(documents, answers) {
            let ours = toml(document)
            if answer != "-" { accepted += 1 }
            if answer == "-" ? ours.hasPrefix("{") : ours != answer {
                differences += 1
                if differences < 10 { Issue.record("theirs \(answer.prefix(300))\nours \(ours.prefix(300))\n\(String(decoding: document, as: UTF8.self))") }
            }
        }
        #expect(differences == 0)
        #expect(accepted > 500 && accepted < 5500)
    }
}
