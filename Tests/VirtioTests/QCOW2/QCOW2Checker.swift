/// Looks an image over as a whole: which clusters its tables refer to, against what its counts say. Knows nothing of the code
/// it checks. Images with internal snapshots are not for it.
struct QCOW2Checker {
    private(set) var errors: [String] = []
    /// Clusters that are counted and that nothing refers to.
    private(set) var leaks = 0
    private let bytes: UnsafeRawBufferPointer
    private var references: [UInt32]
    private let clusterBits: Int
    private var cluster: Int { 1 << clusterBits }

    static func check(_ file: [UInt8]) -> QCOW2Checker { file.withUnsafeBytes { QCOW2Checker($0) } }

    private init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        clusterBits = Int(Self.long(bytes, 20))
        references = Array(repeating: 0, count: (bytes.count >> clusterBits) + 2)
        guard Self.long(bytes, 0) == 0x5146_49FB, Self.long(bytes, 60) == 0 else {
            errors.append("no image to check")
            return
        }
        let version = Self.long(bytes, 4)
        refer(0, 1, "header")
        let l1 = quad(40), l1Count = Int(Self.long(bytes, 36))
        refer(l1, (l1Count * 8 + cluster - 1) >> clusterBits, "L1 table")
        let table = quad(48), tableClusters = Int(Self.long(bytes, 56))
        refer(table, tableClusters, "refcount table")
        let tableEntries = tableClusters << (clusterBits - 3)
        for index in 0..<tableEntries {
            let block = quad(table + index * 8)
            if block != 0 { refer(block, 1, "refcount block \(index)") }
        }
        var entries: [(raw: UInt64, cluster: Int)] = []
        for index in 0..<l1Count {
            let raw = raw(l1 + index * 8)
            let l2 = Int(raw & 0xFF_FFFF_FFFF_FE00)
            guard l2 != 0 else { continue }
            refer(l2, 1, "L2 table \(index)")
            entries.append((raw, l2 >> clusterBits))
            guard l2 + cluster <= bytes.count else { continue }
            for entry in 0..<(cluster / 8) {
                let raw = self.raw(l2 + entry * 8)
                if raw == 0 { continue }
                if raw >> 62 & 1 != 0 {
                    let shift = UInt64(70 - clusterBits)
                    let offset = Int(raw & (1 << shift - 1))
                    let sectors = Int(raw >> shift & (1 << (62 - shift) - 1)) + 1
                    let last = (offset & ~511) + sectors * 512 - 1
                    for touched in offset >> clusterBits...last >> clusterBits {
                        refer(touched << clusterBits, 1, "compressed")
                    }
                    continue
                }
                let offset = Int(raw & 0xFF_FFFF_FFFF_FE00)
                if offset == 0 { continue }
                refer(offset, 1, "cluster \(index).\(entry)")
                entries.append((raw, offset >> clusterBits))
            }
        }
        let order = version >= 3 ? Int(Self.long(bytes, 96)) : 4
        compare(table, tableEntries, order, entries)
    }

    private mutating func refer(_ offset: Int, _ count: Int, _ what: String) {
        guard offset & (cluster - 1) == 0 else { return errors.append("\(what) at \(offset) is not aligned") }
        guard offset >> clusterBits + count <= references.count else {
            return errors.append("\(what) at \(offset) is outside the file")
        }
        for index in 0..<count { references[offset >> clusterBits + index] += 1 }
    }

    private mutating func compare(_ table: Int, _ tableEntries: Int, _ order: Int, _ entries: [(raw: UInt64, cluster: Int)]) {
        let perBlock = (cluster * 8) >> order
        var counts = Array(repeating: UInt64(0), count: references.count)
        for index in 0..<tableEntries {
            let block = quad(table + index * 8)
            guard block != 0, block + cluster <= bytes.count else { continue }
            for number in 0..<perBlock {
                let bit = number << order
                var value: UInt64 = 0
                if order < 3 {
                    value = UInt64(bytes[block + bit / 8]) >> UInt64(bit & 7) & (1 << (1 << UInt64(order)) - 1)
                } else {
                    for byte in 0..<(1 << (order - 3)) { value = value << 8 | UInt64(bytes[block + bit / 8 + byte]) }
                }
                let cluster = index * perBlock + number
                if cluster < counts.count { counts[cluster] = value } else if value != 0 { leaks += 1 }
            }
        }
        for (cluster, expected) in references.enumerated() {
            if counts[cluster] < UInt64(expected) {
                errors.append("cluster \(cluster) is used \(expected) times and counted \(counts[cluster])")
            } else if counts[cluster] > UInt64(expected) {
                leaks += 1
            }
        }
        for (raw, cluster) in entries where cluster < counts.count && (raw >> 63 == 1) != (counts[cluster] == 1) {
            errors.append("cluster \(cluster)'s copied flag is \(raw >> 63), its count \(counts[cluster])")
        }
    }

    private func raw(_ offset: Int) -> UInt64 {
        guard offset >= 0, offset + 8 <= bytes.count else { return 0 }
        return UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    private func quad(_ offset: Int) -> Int { Int(truncatingIfNeeded: raw(offset)) }
    private static func long(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt32 {
        guard offset + 4 <= bytes.count else { return 0 }
        return UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}
