import Foundation
import Testing
import WindhoverTesting

@testable import Virtio

/// Several threads at once, each with sectors of its own that share clusters and tables with the others'.
@Suite struct QCOW2ConcurrencyTests {
    @Test(arguments: [ImageKind(clusterBits: 9), ImageKind(clusterBits: 12), ImageKind(clusterBits: 16, hasBacking: true)])
    func threadsDoNotDisturbEachOther(kind: ImageKind) throws {
        let (threads, slots) = (4, 64)
        let size = threads * slots * 1024
        let file = MemoryImageFile(try newImage(kind.parameters(size)))
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
                            if !now.allSatisfy({ $0 == values[slot] }) { Issue.record("thread \(thread), step \(step), slot \(slot)") }
                        default:
                            values[slot] = UInt8(truncatingIfNeeded: random.next())
                            try image.put(Array(repeating: values[slot], count: 1024), at: place)
                        }
                    } catch { Issue.record("\(error)") }
                }
                for slot in 0..<slots {
                    let now = try? image.bytes(at: (slot * threads + thread) * 1024, count: 1024)
                    if now?.allSatisfy({ $0 == values[slot] }) != true { Issue.record("thread \(thread), slot \(slot) at the end") }
                }
            }
        }
        let check = QCOW2Checker.check(file.bytes)
        #expect(check.errors.prefix(5) == [])
        #expect(check.leaks == 0)
    }
}
