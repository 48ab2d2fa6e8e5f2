import Foundation
import MonitorTesting
import Synchronization
import Testing

@Suite struct CollectionDifferenceTests {
    private static let megabytes64 = [UInt8](repeating: 0x5A, count: 64 << 20)
    /// What failed expectations of `aFailedExpectationSaysTheSentence` said.
    private static let said = Mutex<[String]>([])

    @Test func equalCollectionsHaveNone() {
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
        #expect(difference(of: bytes, from: bytes) == nil)
        #expect(difference(of: bytes, from: bytes.map { $0 }) == nil)
        #expect(difference(of: [UInt8](), from: []) == nil)
        #expect(difference(of: Data(), from: [UInt8]()) == nil)
    }

    @Test func saysWhereAndWhatIsThere() {
        #expect(difference(of: [1, 2, 3, 0xAB] as [UInt8], from: [1, 2, 4, 5]) == "at 2 of 4 bytes: 03 ab in place of 04 05")
        #expect(
            difference(of: [UInt8](0..<20), from: [9] + [UInt8](1..<20))
                == "at 0 of 20 bytes: 00 01 02 03 04 05 06 07 ... in place of 09 01 02 03 04 05 06 07 ...")
        #expect(
            difference(of: [UInt8](0..<9), from: [9] + [UInt8](1..<9))
                == "at 0 of 9 bytes: 00 01 02 03 04 05 06 07 ... in place of 09 01 02 03 04 05 06 07 ...")
        #expect(
            difference(of: [UInt8](0..<8), from: [9] + [UInt8](1..<8))
                == "at 0 of 8 bytes: 00 01 02 03 04 05 06 07 in place of 09 01 02 03 04 05 06 07")
    }

    @Test func saysLengths() {
        #expect(difference(of: [1] as [UInt8], from: [1, 2, 3]) == "1 bytes in place of 3; at 1: nothing in place of 02 03")
        #expect(difference(of: [1, 2, 3] as [UInt8], from: [1]) == "3 bytes in place of 1; at 1: 02 03 in place of nothing")
        #expect(difference(of: [] as [UInt8], from: [7]) == "0 bytes in place of 1; at 0: nothing in place of 07")
        #expect(difference(of: [7] as [UInt8], from: []) == "1 bytes in place of 0; at 0: 07 in place of nothing")
        #expect(difference(of: [1, 2, 3] as [UInt8], from: [1, 9]) == "3 bytes in place of 2; at 1: 02 03 in place of 09")
    }

    @Test func findsOneByteWhereverItIs() {
        let bytes = (0..<12_300).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for place in [0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 12_287, 12_288, 12_298, 12_299] {
            var other = bytes
            other[place] ^= 0x80
            let found = difference(of: bytes, from: other)
            #expect(found?.hasPrefix("at \(place) of 12300 bytes: ") == true, "\(place): \(found ?? "nothing")")
        }
    }

    @Test func comparesWhateverHoldsBytes() {
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let data = Data(bytes)
        #expect(difference(of: data, from: bytes) == nil)
        #expect(difference(of: bytes, from: data) == nil)
        #expect(difference(of: data[100...], from: bytes[100...]) == nil)
        #expect(difference(of: bytes[5000..<5100], from: data[5000..<5100]) == nil)
        #expect(difference(of: bytes.reversed().lazy.map { $0 }.reversed(), from: bytes) == nil)
        #expect(difference(of: repeatElement(3 as UInt8, count: 3), from: [3, 3, 3]) == nil)
        // A place is counted from the beginning of the part.
        #expect(
            difference(of: bytes[200..<202], from: data[100..<102]) == "at 0 of 2 bytes: 78 7f in place of bc c3")
        #expect(difference(of: repeatElement(3 as UInt8, count: 3), from: [3, 4, 3]) == "at 1 of 3 bytes: 03 03 in place of 04 03")
    }

    @Test func comparesWiderNumbers() {
        let numbers = (0..<3000).map { UInt64($0) << 30 }
        #expect(difference(of: numbers, from: numbers.map { $0 }) == nil)
        var others = numbers
        others[2998] ^= 1 << 60
        #expect(
            difference(of: numbers, from: others)
                == "at 2998 of 3000 elements: 000002ed80000000 000002edc0000000 in place of 100002ed80000000 000002edc0000000")
        #expect(difference(of: [1, -1] as [Int16], from: [1, 2]) == "at 1 of 2 elements: ffff in place of 0002")
        #expect(difference(of: [1] as [UInt16], from: [1, 0x203]) == "1 elements in place of 2; at 1: nothing in place of 0203")
    }

    /// Of the two ways in which an expectation that has failed takes its time, a search for the fewest changes and a description of what was compared,
    /// either would take more than minutes.
    @Test(
        .filterIssues { issue in
            let text = "\(issue)"
            guard text.contains("5a 5a 5a 5a 5a 5a 5a 5a ... in place of ") else { return true }
            said.withLock { $0.append(text) }
            return false
        }
    )
    func aFailedExpectationSaysTheSentence() {
        let expected = Self.megabytes64
        let inverse = [UInt8](repeating: 0xA5, count: expected.count)
        let took = ContinuousClock().measure {
            #expect(difference(of: expected, from: inverse) == nil)
            #expect(difference(of: expected, from: expected.dropLast(4_000_000)) == nil)
            #expect(difference(of: Data(expected), from: expected + [1]) != nil)
        }
        let said = Self.said.withLock { $0 }
        #expect(said.count == 2)
        #expect(said.first?.contains("at 0 of 67108864 bytes: 5a 5a 5a 5a 5a 5a 5a 5a ... in place of a5 a5 a5 a5 a5 a5 a5 a5 ...") == true)
        #expect(said.last?.contains("67108864 bytes in place of 63108864; at 63108864: 5a 5a 5a 5a 5a 5a 5a 5a ... in place of nothing") == true)
        #expect(took < .seconds(5), "\(took)")
    }
}
