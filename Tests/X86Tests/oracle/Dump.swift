// Decodes what the cross-check feeds it. Compiled together with Sources/X86 into one module.
//
// Standard input: records of 17 bytes, the mode (16, 32 or 64) and 16 code bytes. Standard output: one line each,
// "length<TAB>text" or "0<TAB>error".
import Glibc

@main
enum Dump {
    static func main() {
        if CommandLine.arguments.contains("--rows") { return printRows() }
        if CommandLine.arguments.contains("--rate") { return measureRate() }
        let input = standardInput()
        var out = ""
        for start in stride(from: 0, to: input.count - 16, by: 17) {
            let record = Array(input[start..<start + 17])
            let mode: CodeMode = record[0] == 64 ? .bits64 : record[0] == 32 ? .bits32 : .bits16
            do throws(DecodeError) {
                let code = record[1...16]
                let instruction = try Decoder.decode(code.span, mode: mode)
                out += "\(instruction.length)\t\(Disassembler.text(instruction, at: 0x1000))\n"
            } catch {
                out += "0\t\(error)\n"
            }
            if out.utf8.count > 60_000 {
                print(out, terminator: "")
                out = ""
            }
        }
        print(out, terminator: "")
    }

    static func standardInput() -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(STDIN_FILENO, &chunk, chunk.count)
            if count <= 0 { return bytes }
            bytes += chunk[0..<count]
        }
    }

    /// One line a row: facts that an oracle can be asked about.
    static func printRows() {
        for id in RowID.all {
            var modes: [String] = []
            for mode in CodeMode.allCases where id.isValid(in: mode) { modes.append("\(mode)") }
            print(
                id.rawValue, id.map, String(id.opcode, radix: 16), id.mnemonic.name, id.feature, id.flagsRead.rawValue,
                id.flagsWritten.rawValue, id.flagsUndefined.rawValue, id.isLockable, id.isPrivileged, id.isSerialising,
                modes.joined(separator: ","))
        }
    }

    /// Decodes standard input as 64-bit code, over and over, and prints instructions a second.
    static func measureRate() {
        let code = standardInput()
        var best = 0.0
        for _ in 0..<5 {
            var start = timespec()
            unsafe clock_gettime(CLOCK_MONOTONIC, &start)
            var instructions = 0
            var errors = 0
            var sum = 0
            unsafe code.withUnsafeBufferPointer { buffer in
                var position = 0
                while position < buffer.count {
                    do throws(DecodeError) {
                        let instruction = try unsafe Decoder.decode(
                            buffer.baseAddress! + position, count: buffer.count - position, mode: .bits64)
                        position += Int(instruction.length)
                        sum &+= Int(instruction.mnemonic.rawValue) &+ Int(instruction.displacement)
                    } catch {
                        errors += 1
                        position += 1
                    }
                    instructions += 1
                }
            }
            var end = timespec()
            unsafe clock_gettime(CLOCK_MONOTONIC, &end)
            let seconds = Double(end.tv_sec - start.tv_sec) + Double(end.tv_nsec - start.tv_nsec) / 1e9
            best = max(best, Double(instructions) / seconds)
            print(instructions, "instructions,", errors, "bad, check", sum)
        }
        print(Int(best / 1e6), "million instructions a second")
    }
}
