import Foundation
import Testing
import MonitorTesting

@testable import Virtio

/// Several threads at once, each with sectors of its own that share clusters and tables with the others'.
@Suite struct QCOW2ConcurrencyTests {
    /// A cluster that is discarded while it is being read is not used for anything else before that is over.
    @Test func clustersOfTransfersInFlightAreNotUsedAgain() throws {
        let file = MemoryImageFile(try newQCOW2Image(QCOW2Parameters(size: 1 << 20, clusterBits: 12)))
        let image = try QCOW2Image(file: file, name: "test", readOnly: false)
        try image.put(Array(repeating: 1, count: 64 << 10), at: 0)
        try image.flush()
        let before = file.bytes.count
        file.beforeNextRead { _ in
            // Between where the bytes are and the reading of them.
            try? image.discard(at: 0, count: 64 << 10)
            for round in 0..<4 {
                try? image.flush()
                try? image.put(Array(repeating: UInt8(0x10 + round), count: 16 << 10), at: 128 << 10 + round * (16 << 10))
            }
        }
        let read = try image.bytes(at: 0, count: 16 << 10)
        #expect(read.allSatisfy { $0 == 1 })
        // Afterwards it is.
        try image.flush()
        try image.put(Array(repeating: 5, count: 64 << 10), at: 512 << 10)
        try image.flush()
        #expect(file.bytes.count == before)
        #expect(try image.bytes(at: 128 << 10, count: 1) == [0x10])
        #expect(QCOW2Checker.check(file.bytes).errors == [])
    }

    @Test(arguments: [ImageKind(clusterBits: 9), ImageKind(clusterBits: 12), ImageKind(clusterBits: 16, hasBacking: true)])
    func threadsDoNotDisturbEachOther(kind: ImageKind) throws {
        let (threads, slots) = (4, 64)
        let size = threads * slots * 1024
        let file = MemoryImageFile(try newQCOW2Image(kind.parameters(size)))
        do {
            let image = try QCOW2Image(
                file: file, name: "test", readOnly: false, backing: kind.hasBacking ? .absent : .unspecified, cacheLimit: 0)
            DispatchQueue.concurrentPerform(iterations: threads) { thread in
                var random = SeededRandom(seed: UInt64(thread))
                var values = Array(repeating: UInt8(0), count: slots)
                for step in 0..<300 {
                    let slot = random.below(slots)
                    let place = (slot * threads + thread) * 1024
                    do {
                        switch random.below(8) {
                        case 0:
                            try image.writeZeroes(at: UInt64(place), count: 1024, mayUnmap: random.oneIn(2))
                            values[slot] = 0
                        case 1:
                            try image.discard(at: UInt64(place), count: 1024)
                            values[slot] = try image.bytes(at: place, count: 1)[0]
                        case 2 where step % 16 == 0: try image.flush()
                        case 3, 4:
                            let now = try image.bytes(at: place, count: 1024)
                            if !now.allSatisfy({ $0 == values[slot] }) {
                                Issue.record("thread \(thread), step \(step), slot \(slot)")
                            }
                        default:
                            values[slot] = UInt8(truncatingIfNeeded: random.next())
                            try image.put(Array(repeating: values[slot], count: 1024), at: place)
                        }
                    } catch { Issue.record("\(error)") }
                }
                for slot in 0..<slots {
                    let now = try? image.bytes(at: (slot * threads + thread) * 1024, count: 1024)
                    if now?.allSatisfy({ $0 == values[slot] }) != true {
                        Issue.record("thread \(thread), slot \(slot) at the end")
                    }
                }
            }
        }
        let check = QCOW2Checker.check(file.bytes)
        #expect(check.errors.prefix(5) == [])
        #expect(check.leaks == 0)
    }
}
