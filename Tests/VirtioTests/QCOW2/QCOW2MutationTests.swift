import Testing
import MonitorTesting

@testable import Virtio

/// Unpacks nothing, and does not mind what it is given.
private final class AnyInflater: ClusterInflater {
    func inflate(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Bool {
        output.initializeMemory(as: UInt8.self, repeating: input.first ?? 0)
        return input.count % 3 != 0
    }
}

/// Bytes of valid images' tables are changed at random: whatever comes of it, nothing traps and nothing grows.
@Suite struct QCOW2MutationTests {
    static let size = 40 << 10
    /// The most that a file may come to; a valid image here needs a tenth of it.
    static let limit = 4 << 20

    /// Images with a bit of everything in them.
    private static func seeds() throws -> [[UInt8]] {
        try [
            ImageKind(clusterBits: 9), ImageKind(clusterBits: 9, refcountOrder: 6), ImageKind(clusterBits: 9, version: 2),
            ImageKind(clusterBits: 10, refcountOrder: 1, hasBacking: true),
        ].map { kind in
            let file = MemoryImageFile(try newQCOW2Image(kind.parameters(size)))
            let image = try QCOW2Image(
                file: file, name: "seed", readOnly: false, backing: kind.hasBacking ? .absent : .unspecified)
            try image.put(Array(repeating: 1, count: 9 << 10), at: 1024)
            try image.put(Array(repeating: 2, count: 2048), at: 33 << 10)
            try image.writeZeroes(at: 2048, count: 2048, mayUnmap: false)
            try image.writeZeroes(at: 5120, count: 1024, mayUnmap: true)
            try image.flush()
            // What the file was made longer by in advance is not needed here.
            var bytes = file.bytes
            bytes.removeLast(bytes.count - min(bytes.count, 48 << 10))
            return bytes
        }
    }

    /// Offsets of bytes that are likely the tables': the header, and every byte that is not the disk's or is next to one.
    private static func targets(_ bytes: [UInt8]) -> [Int] {
        Array(0..<144) + bytes.indices.dropFirst(144).filter { index in
            bytes[index] > 2 || bytes[index - 1] > 2 || (index + 7 < bytes.count && bytes[index + 7] > 2)
        }
    }

    @Test(arguments: 0..<4) func twentyThousandMutations(part: Int) throws {
        let seed = try Self.seeds()[part]
        let targets = Self.targets(seed)
        var random = SeededRandom(seed: UInt64(part) + 99)
        let inflater = AnyInflater()
        var opened = 0
        var largest = 0
        for _ in 0..<5000 {
            var bytes = seed
            for _ in 0..<1 + random.below(3) {
                let target = targets[random.below(targets.count)]
                bytes[target] = random.oneIn(2) ? bytes[target] ^ 1 << UInt8(random.below(8)) : UInt8(random.below(256))
            }
            let file = MemoryImageFile(bytes, limit: 256 << 20)
            guard let image = try? QCOW2Image(
                file: file, name: "mutation", readOnly: random.oneIn(4), backing: .absent, inflater: inflater)
            else { continue }
            opened += 1
            Self.use(image, &random)
            largest = max(largest, file.bytes.count)
        }
        #expect(opened > 500)
        #expect(largest <= Self.limit)
    }

    private static func use(_ image: QCOW2Image, _ random: inout SeededRandom) {
        // The disk may be of another size now.
        let reach = Int(clamping: min(image.capacity, UInt64(size)))
        for start in stride(from: 0, to: reach, by: 8192) { _ = try? image.bytes(at: start, count: min(8192, reach - start)) }
        guard !image.isReadOnly, reach >= 4096 else { return }
        for _ in 0..<4 {
            let start = random.below(reach / 512) * 512
            let count = min(2048, reach - start)
            switch random.below(4) {
            case 0: try? image.discard(at: UInt64(start), count: UInt64(count))
            case 1: try? image.writeZeroes(at: UInt64(start), count: UInt64(count), mayUnmap: random.oneIn(2))
            default: try? image.put(Array(repeating: 3, count: count), at: start)
            }
        }
        try? image.flush()
        // And at the far end of whatever it says it is.
        if image.capacity >= 4096 { _ = try? image.bytes(at: Int(clamping: image.capacity - 4096), count: 4096) }
    }
}
