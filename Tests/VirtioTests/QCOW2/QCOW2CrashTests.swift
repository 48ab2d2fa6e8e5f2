import Glibc
import Testing
import MonitorTesting

@testable import Virtio

/// Stops time after every write to the file, in the order they were made or with those since the last sync in any order and
/// torn to sectors, and looks at what is left.
@Suite struct QCOW2CrashTests {
    /// What happened to the disk, by the number of the file operation it began or ended at.
    private struct History {
        /// Every sector's value at the start, and at the end of each flush.
        var flushed: [(end: Int, values: [UInt64])] = []
        var changes: [(start: Int, sector: Int, value: UInt64)] = []

        /// What the sectors may read as, when only the first `count` operations were done: one value, or others that were
        /// written since.
        func allowed(_ count: Int) -> Allowed {
            let base = flushed.last { $0.end <= count }!
            var since: [Int: Set<UInt64>] = [:]
            for change in changes where change.start < count && change.start >= base.end {
                since[change.sector, default: []].insert(change.value)
            }
            return Allowed(values: base.values, since: since)
        }
    }

    private struct Allowed {
        var values: [UInt64]
        var since: [Int: Set<UInt64>]
        func contains(_ value: UInt64?, _ sector: Int) -> Bool {
            guard let value else { return false }
            return value == values[sector] || since[sector]?.contains(value) == true
        }
    }

    private static func fill(_ value: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<64 { bytes.append(contentsOf: withUnsafeBytes(of: value) { Array($0) }) }
        return bytes
    }

    /// Sectors, each with its number and a base as its value.
    private static func stamps(_ sectors: Range<Int>, _ base: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        for sector in sectors { bytes += fill(base + UInt64(sector)) }
        return bytes
    }

    /// A sector's value; nil where it is torn, which the tests' files never do.
    private static func value(_ bytes: ArraySlice<UInt8>) -> UInt64? {
        bytes.withUnsafeBytes { bytes in
            let first = bytes.loadUnaligned(as: UInt64.self)
            // All the same, where each eight bytes are the next eight.
            return memcmp(bytes.baseAddress!, bytes.baseAddress! + 8, 504) == 0 ? first : nil
        }
    }

    private struct Run {
        var start: [UInt8]
        var log: [FileOperation]
        var history: History
        var sectors: Int
        var backing: QCOW2Backing
    }

    /// Random changes with a flush now and then.
    private static func run(_ kind: ImageKind, size: Int, changes: Int, prepare: Int = 0, seed: UInt64) throws -> Run {
        let sectors = size / 512
        var below: [UInt8] = []
        if kind.hasBacking { below = stamps(0..<sectors / 2, 1 << 40) }
        let backing: QCOW2Backing = kind.hasBacking ? .image(MemoryDisk(below)) : .unspecified
        let file = MemoryImageFile(try newQCOW2Image(kind.parameters(size)))
        var values: [UInt64] = Array(repeating: 0, count: sectors)
        if kind.hasBacking { for sector in 0..<sectors / 2 { values[sector] = (1 << 40) + UInt64(sector) } }
        if prepare > 0 {
            let image = try QCOW2Image(file: file, name: "test", readOnly: false, backing: backing)
            try image.put(stamps(0..<prepare, 1 << 41), at: 0)
            for sector in 0..<prepare { values[sector] = (1 << 41) + UInt64(sector) }
        }
        let start = file.bytes
        var history = History()
        var random = SeededRandom(seed: seed)
        file.startLog()
        let image = try QCOW2Image(file: file, name: "test", readOnly: false, backing: backing, cacheLimit: 0)
        history.flushed.append((0, values))
        for step in 0..<changes {
            let sector = random.below(sectors)
            let count = min(1 + random.below(12), sectors - sector)
            let before = file.logCount
            let isData = random.below(10) < 7
            for index in sector..<sector + count {
                let value = isData ? UInt64(step * 10_000 + 1 + index) : 0
                history.changes.append((before, index, value))
                values[index] = value
            }
            if isData {
                try image.put(stamps(sector..<sector + count, UInt64(step * 10_000 + 1)), at: sector * 512)
            } else if random.oneIn(2) {
                try image.writeZeroes(at: UInt64(sector * 512), count: UInt64(count * 512), mayUnmap: random.oneIn(2))
            } else {
                try image.discard(at: UInt64(sector * 512), count: UInt64(count * 512))
                let now = try image.bytes(at: sector * 512, count: count * 512)
                for index in 0..<count { values[sector + index] = value(now[index * 512..<index * 512 + 512]) ?? .max }
            }
            if random.oneIn(5) {
                try image.flush()
                history.flushed.append((file.logCount, values))
            }
        }
        return Run(start: start, log: file.log, history: history, sectors: sectors, backing: backing)
    }

    private static func look(_ bytes: [UInt8], _ run: Run, _ count: Int, _ allowed: Allowed, _ how: String) -> Bool {
        let check = QCOW2Checker.check(bytes)
        guard check.errors.isEmpty else {
            Issue.record("\(how) after \(count) of \(run.log.count): \(check.errors.prefix(5))")
            return false
        }
        do {
            let image = try QCOW2Image(file: MemoryImageFile(bytes), name: "test", readOnly: false, backing: run.backing)
            let content = try image.bytes(at: 0, count: run.sectors * 512)
            for sector in 0..<run.sectors {
                guard allowed.contains(value(content[sector * 512..<sector * 512 + 512]), sector) else {
                    Issue.record("\(how) after \(count) of \(run.log.count): sector \(sector) is lost")
                    return false
                }
            }
        } catch {
            Issue.record("\(how) after \(count): \(error)")
            return false
        }
        return true
    }

    private static func replay(_ run: Run, losses: Int) {
        var random = SeededRandom(seed: 7)
        var bytes = run.start
        var durable = run.start
        var pending: [FileOperation] = []
        for (index, operation) in run.log.enumerated() {
            operation.apply(to: &bytes)
            if case .sync = operation {
                (durable, pending) = (bytes, [])
                continue
            }
            pending.append(operation)
            let allowed = run.history.allowed(index + 1)
            guard look(bytes, run, index + 1, allowed, "killed") else { return }
            for _ in 0..<losses {
                var left = durable
                for operation in pending {
                    for piece in torn(operation) where random.oneIn(2) { piece.apply(to: &left) }
                }
                guard look(left, run, index + 1, allowed, "power lost") else { return }
            }
        }
    }

    /// The sectors of a write, each of which may get to the disk without the others.
    private static func torn(_ operation: FileOperation) -> [FileOperation] {
        guard case .write(let offset, let bytes) = operation, bytes.count > 512 else { return [operation] }
        var pieces: [FileOperation] = []
        for start in stride(from: 0, to: bytes.count, by: 512) {
            pieces.append(.write(offset: offset + start, bytes: Array(bytes[start..<min(start + 512, bytes.count)])))
        }
        return pieces
    }

    @Test(arguments: [
        ImageKind(clusterBits: 9), ImageKind(clusterBits: 9, refcountOrder: 6), ImageKind(clusterBits: 10, version: 2),
        ImageKind(clusterBits: 10, hasBacking: true), ImageKind(clusterBits: 12, refcountOrder: 0),
    ]) func everyMoment(kind: ImageKind) throws {
        let run = try Self.run(kind, size: 128 << 10, changes: 60, seed: UInt64(kind.clusterBits + kind.refcountOrder))
        #expect(run.log.count > 90)
        Self.replay(run, losses: 1)
    }

    /// The refcount table moves among these.
    @Test func everyMomentOfAGrowingRefcountTable() throws {
        let kind = ImageKind(clusterBits: 9, refcountOrder: 6)
        let run = try Self.run(kind, size: 4 << 20, changes: 30, prepare: 3940, seed: 3)
        var moves = 0
        for operation in run.log {
            if case .write(let offset, _) = operation, offset == 48 { moves += 1 }
        }
        #expect(moves == 1)
        Self.replay(run, losses: 1)
    }

    /// The host's errno that the call throws; 0 for none, -1 for another error.
    private static func errno(_ call: () throws -> Void) -> Int32 {
        do {
            try call()
            return 0
        } catch {
            if let error = error as? BlockError, case .host(let code) = error { return code }
            return -1
        }
    }

    /// Errors of the host's are reported, and do not harm what is on the disk.
    @Test(arguments: 0..<60) func fullHost(after count: Int) throws {
        let kind = ImageKind(clusterBits: 9, refcountOrder: 6)
        let file = MemoryImageFile(try newQCOW2Image(kind.parameters(128 << 10)))
        var failures = 0
        do {
            let image = try QCOW2Image(file: file, name: "test", readOnly: false, cacheLimit: 0)
            file.fail(after: count * 3)
            for step in 0..<40 {
                let sector = Self.fill(UInt64(step + 1))
                let put = Self.errno { try image.put(sector + sector, at: (step * 7) % 120 * 1024) }
                let flush = step % 8 == 7 ? Self.errno { try image.flush() } : 0
                #expect([0, 28].contains(put) && [0, 28].contains(flush))
                if put + flush > 0 { failures += 1 }
            }
            #expect(QCOW2Checker.check(file.bytes).errors.prefix(5) == [])
            file.fail(after: .max)
            if failures > 0, count % 2 == 0 {
                // There is space again: it goes on as if nothing had been.
                try image.put(Self.fill(77), at: 512)
                try image.flush()
                #expect(try difference(of: image.bytes(at: 512, count: 512), from: Self.fill(77)) == nil)
            }
        }
        #expect(count > 35 || failures > 0)
        #expect(QCOW2Checker.check(file.bytes).errors.prefix(5) == [])
    }

    /// After a failed sync the host may have dropped anything: no later flush may claim that all is well.
    @Test func failedSyncsAreNotForgotten() throws {
        let file = MemoryImageFile(try newQCOW2Image(QCOW2Parameters(size: 1 << 20)))
        let image = try QCOW2Image(file: file, name: "test", readOnly: false)
        try image.put([1], at: 0)
        try image.flush()
        try image.put([2], at: 0)
        file.failSync(true)
        #expect(throws: BlockError.host(errno: 5)) { try image.flush() }
        file.failSync(false)
        #expect(throws: BlockError.host(errno: 5)) { try image.flush() }
        #expect(throws: BlockError.host(errno: 5)) { try image.put([3], at: 0) }
        #expect(try image.bytes(at: 0, count: 1) == [2])
    }
}
