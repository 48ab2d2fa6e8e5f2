import Glibc
import Testing
import MonitorTesting

@testable import X86

/// Lengths against GNU objdump, where it is installed: a decoder by other hands.
@Suite struct ObjdumpTests {
    static let path = (["/usr/bin/objdump", "/usr/local/bin/objdump"] as [String]).first { access($0, X_OK) == 0 }
    /// Each encoding is followed by one-byte NOPs up to here, so that whatever objdump makes of one, it meets the next in step.
    static let slot = 32

    /// Rows where the two differ by intent: what the decoder's documentation says of Intel's and AMD's processors, and of
    /// instructions it leaves out.
    static let different: Set<Mnemonic> = [
        // objdump prints the prefix FWAIT as an instruction, or joins it to the next.
        .fwait
    ]

    @Test(.enabled(if: path != nil, "no objdump: install binutils"), arguments: CodeMode.allCases)
    func lengthsAgree(mode: CodeMode) throws {
        var random = SeededRandom(seed: 0x0B1D)
        var image: [UInt8] = []
        var cases: [(row: RowID, bytes: [UInt8])] = []
        for row in RowID.all where !Self.different.contains(row.mnemonic) {
            guard let encoder = RowEncoder(row, mode: mode) else { continue }
            for _ in 0..<4 {
                let bytes = encoder.encode(using: &random).bytes
                guard bytes.count <= 15, !isShortBranch(row, bytes, mode) else { continue }
                cases.append((row, bytes))
                image += bytes + [UInt8](repeating: 0x90, count: Self.slot - bytes.count)
            }
        }
        let lengths = try disassemble(image, mode)
        var unknown: Set<Mnemonic> = []
        var wrong: [String] = []
        var compared = 0
        for (position, one) in cases.enumerated() {
            guard let (length, text) = lengths[position * Self.slot] else {
                wrong.append("\(hex(one.bytes)) \(describe(one.row)): objdump is out of step")
                continue
            }
            if text.contains("(bad)") || text.contains(".byte") {
                unknown.insert(one.row.mnemonic)
                continue
            }
            compared += 1
            if length != one.bytes.count { wrong.append("\(hex(one.bytes)) \(describe(one.row)): \(length) bytes, \(text)") }
        }
        #expect(wrong.isEmpty, "\(wrong.count) of \(cases.count):\n\(wrong.prefix(40).joined(separator: "\n"))")
        #expect(compared > 4000)
        // What this objdump cannot read at all is little, and old or vendor-specific.
        #expect(unknown.count < 30, "\(unknown)")
    }

    /// A near branch with 66 in 64-bit mode: Intel's processors ignore the prefix, as the decoder does; AMD's, and objdump,
    /// take a 16-bit displacement.
    private func isShortBranch(_ row: RowID, _ bytes: [UInt8], _ mode: CodeMode) -> Bool {
        let relative = row.row.operand0.source == .relative && row.row.operand0.size == .z
        return mode == .bits64 && relative && bytes.prefix(5).contains(0x66)
    }

    /// - Returns: length and text of the instruction at each offset where objdump sees one begin.
    private func disassemble(_ image: [UInt8], _ mode: CodeMode) throws -> [Int: (Int, String)] {
        let template = "/tmp/windhover-objdump-XXXXXX"
        var name = Array(template.utf8CString)
        let file = mkstemp(&name)
        try #require(file >= 0)
        let path = String(decoding: name.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        defer { unlink(path) }
        var written = 0
        while written < image.count {
            let count = image[written...].withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
            try #require(count > 0)
            written += count
        }
        close(file)
        let machine = mode == .bits64 ? "i386:x86-64" : mode == .bits32 ? "i386" : "i8086"
        let command = "\(Self.path ?? "objdump") -D -b binary -m \(machine) -M intel --insn-width=16 \(path)"
        let pipe = try #require(popen(command, "r"))
        defer { pclose(pipe) }
        var lines: [Int: (Int, String)] = [:]
        var line = [CChar](repeating: 0, count: 512)
        while fgets(&line, 512, pipe) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            let fields = text.split(separator: "\t", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count >= 2, let offset = Int(fields[0].drop { $0 == " " }.prefix { $0 != ":" }, radix: 16) else { continue }
            lines[offset] = (fields[1].split(separator: " ").count, fields.count > 2 ? String(fields[2]).filter { $0 != "\n" } : "(bad)")
        }
        return lines
    }
}
