@testable import Virtio

/// Unpacks deflate streams as RFC 1951 says, slowly.
final class ReferenceInflater: ClusterInflater {
    func inflate(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool {
        var stream = Stream(input: input, output: output)
        return stream.run()
    }

    private struct Code {
        /// How many codes there are of each length, and their symbols in order.
        var counts = Array(repeating: 0, count: 16)
        var symbols: [Int] = []

        init(_ lengths: ArraySlice<Int>) {
            for length in lengths { counts[length] += 1 }
            for length in 1...15 {
                for (symbol, own) in lengths.enumerated() where own == length { symbols.append(symbol) }
            }
            counts[0] = 0
        }
    }

    private struct Stream {
        let input: UnsafeRawBufferPointer
        let output: UnsafeMutableRawBufferPointer
        var place = 0
        var bit = 0
        var written = 0

        mutating func bits(_ count: Int) -> Int? {
            var value = 0
            for index in 0..<count {
                guard place < input.count else { return nil }
                value |= Int(input[place] >> UInt8(bit) & 1) << index
                bit += 1
                if bit == 8 { (bit, place) = (0, place + 1) }
            }
            return value
        }

        mutating func symbol(_ code: Code) -> Int? {
            var (value, first, index) = (0, 0, 0)
            for length in 1...15 {
                guard let next = bits(1) else { return nil }
                value |= next
                let count = code.counts[length]
                if value - count < first { return code.symbols[index + value - first] }
                index += count
                first = (first + count) << 1
                value <<= 1
            }
            return nil
        }

        mutating func put(_ byte: UInt8) {
            guard written < output.count else { return }
            output[written] = byte
            written += 1
        }

        mutating func run() -> Bool {
            while written < output.count {
                guard let last = bits(1), let kind = bits(2) else { return false }
                let isWhole: Bool
                switch kind {
                case 0: isWhole = stored()
                case 1:
                    let lengths = (0..<288).map { $0 < 144 ? 8 : $0 < 256 ? 9 : $0 < 280 ? 7 : 8 }
                    isWhole = block(Code(lengths[...]), Code(Array(repeating: 5, count: 30)[...]))
                case 2: isWhole = dynamic()
                default: return false
                }
                guard isWhole else { return false }
                if last == 1 { break }
            }
            return written == output.count
        }

        mutating func stored() -> Bool {
            if bit > 0 { (bit, place) = (0, place + 1) }
            guard let length = bits(16), bits(16) != nil else { return false }
            for _ in 0..<length {
                guard let byte = bits(8) else { return false }
                put(UInt8(byte))
            }
            return true
        }

        mutating func dynamic() -> Bool {
            guard let literals = bits(5), let distances = bits(5), let count = bits(4) else { return false }
            let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
            var lengths = Array(repeating: 0, count: 19)
            for index in 0..<count + 4 {
                guard let length = bits(3) else { return false }
                lengths[order[index]] = length
            }
            let code = Code(lengths[...])
            lengths = []
            let total = literals + 257 + distances + 1
            while lengths.count < total {
                guard let symbol = symbol(code) else { return false }
                switch symbol {
                case 16:
                    guard let more = bits(2), let last = lengths.last else { return false }
                    lengths += Array(repeating: last, count: more + 3)
                case 17, 18:
                    guard let more = bits(symbol == 17 ? 3 : 7) else { return false }
                    lengths += Array(repeating: 0, count: more + (symbol == 17 ? 3 : 11))
                default: lengths.append(symbol)
                }
            }
            return block(Code(lengths[..<(literals + 257)]), Code(lengths[(literals + 257)..<total]))
        }

        mutating func block(_ literals: Code, _ distances: Code) -> Bool {
            while true {
                guard let symbol = symbol(literals) else { return false }
                if symbol == 256 { return true }
                if symbol < 256 {
                    put(UInt8(symbol))
                    continue
                }
                guard let length = length(symbol - 257), let code = self.symbol(distances), let distance = distance(code),
                    distance <= written
                else { return false }
                for _ in 0..<length where written < output.count { put(output[written - distance]) }
            }
        }

        mutating func length(_ index: Int) -> Int? {
            if index < 8 { return index + 3 }
            if index == 28 { return 258 }
            let extra = (index - 4) / 4
            guard let more = bits(extra) else { return nil }
            return 3 + ((4 + index % 4) << extra) + more
        }

        mutating func distance(_ index: Int) -> Int? {
            if index < 2 { return index + 1 }
            let extra = index / 2 - 1
            guard let more = bits(extra) else { return nil }
            return 1 + ((2 + index % 2) << extra) + more
        }
    }
}
