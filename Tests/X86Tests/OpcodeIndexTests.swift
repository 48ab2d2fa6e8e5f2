import Glibc
import Testing

@testable import X86

@Suite struct OpcodeIndexTests {
    /// The committed index is the one that the rows ask for.
    ///
    /// After a change to the tables, run with WINDHOVER_WRITE_OPCODE_INDEX=1 to write it anew.
    @Test func committedIndexFollowsFromTheRows() throws {
        let entries = try #require(OpcodeIndex.build(), "the rows of an opcode are not neighbours or differ in ModRM")
        if getenv("WINDHOVER_WRITE_OPCODE_INDEX") != nil { try write(entries) }
        let stale = (0..<entries.count).filter { opcodeIndex[$0] != entries[$0] }
        #expect(stale.isEmpty, "stale index: run this test with WINDHOVER_WRITE_OPCODE_INDEX=1, then build again")
    }

    private func write(_ entries: [UInt32]) throws {
        var text = """
            /// Written by OpcodeIndexTests from the rows; not to be edited.
            let opcodeIndex: InlineArray<\(entries.count), UInt32> = [

            """
        for line in stride(from: 0, to: entries.count, by: 8) {
            if line % 256 == 0 {
                text += (line == 0 ? "" : "\n") + "    // \(OpcodeMap.allCases[line / 256])\n"
            }
            let words = entries[line..<line + 8].map { word in
                let digits = String(word, radix: 16, uppercase: true)
                return "0x" + String(repeating: "0", count: 7 - digits.count) + digits
            }
            text += "    " + words.joined(separator: ", ") + ",\n"
        }
        text += "]\n"
        let path = #filePath.replacing("Tests/X86Tests/OpcodeIndexTests.swift", with: "Sources/X86/Tables/OpcodeIndexData.swift")
        let file = try #require(fopen(path, "w"))
        defer { fclose(file) }
        #expect(fputs(text, file) >= 0)
    }
}
