/// Requests of a file system's driver, about files and handles that it was told of. Source: [FUSE].
struct ShareShapes {
    /// Or about to be.
    private var isMounted = false
    private var unique: UInt64 = 0
    private var nodes: [UInt64] = [1]
    private var handles: [(node: UInt64, handle: UInt64)] = []
    /// Nodes that OPEN, OPENDIR and CREATE were sent for, by the number of the request: its lower 16 bits.
    private var opening: [UInt16: UInt64] = [:]

    private static let names = ["f", "g", "d", "e", "l", "p", "x", "y", "..", ".", "", "d/e", "user.a", "security.capability"]
    /// Each as often as it may come; what makes all of the host's disks safe does not.
    private static let opcodes: [UInt32] = [
        1, 1, 1, 1, 2, 3, 3, 4, 5, 6, 8, 9, 9, 10, 11, 12, 13, 14, 14, 14, 14, 15, 15, 15, 15, 15, 16, 16, 16, 16, 16, 17, 18, 20, 21,
        22, 23, 24, 25, 27, 28, 28, 29, 30, 31, 32, 33, 34, 35, 35, 35, 35, 35, 36, 42, 43, 44, 44, 45, 46, 47, 51, 51,
    ]

    mutating func begin() { self = ShareShapes() }

    private static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        (0..<(Value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> Value(8 * $0)) }
    }

    private static func message(_ opcode: UInt32, unique: UInt64, node: UInt64, _ body: [UInt8]) -> [UInt8] {
        let rest = [UInt8](repeating: 0, count: 16)
        return little(UInt32(40 + body.count)) + little(opcode) + little(unique) + little(node) + rest + body
    }

    /// GETATTR of the root, which is answered also where nothing is mounted.
    static let simplest = message(3, unique: 2, node: 1, [UInt8](repeating: 0, count: 16))

    mutating func make(queue: Int, _ random: inout SeededRandom) -> (readable: [UInt8], writable: Int) {
        unique &+= 1
        // The number says what the answer will be to.
        func send(_ opcode: UInt32, _ node: UInt64, _ body: [UInt8], _ room: Int) -> ([UInt8], Int) {
            (Self.message(opcode, unique: unique << 8 | UInt64(opcode & 0xFF), node: node, body), room)
        }
        guard isMounted || random.oneIn(8) else {
            isMounted = true
            let version: [UInt32] = [7, 38, 131_072, 0x7FFF_FFFF]
            return send(26, 0, version.flatMap { Self.little($0) } + [UInt8](repeating: 0, count: 48), 80)
        }
        var opcode = Self.opcodes[random.below(Self.opcodes.count)]
        if queue == 0, random.oneIn(2) { opcode = [2, 2, 36, 42][random.below(4)] }
        if random.oneIn(400) { opcode = random.oneIn(2) ? 38 : UInt32(truncatingIfNeeded: random.next()) }
        let pair = handles.randomElement(using: &random) ?? (1, 0)
        let takesHandle = [15, 16, 18, 20, 25, 28, 29, 30, 31, 32, 33, 43, 44, 46, 47].contains(opcode)
        let node = takesHandle && !random.oneIn(12) ? pair.node : nodes.randomElement(using: &random) ?? 1
        if [14, 27, 35, 51].contains(opcode) { opening[UInt16(truncatingIfNeeded: unique)] = node }
        if opening.count > 64 { opening = [:] }
        return send(
            opcode, node, body(opcode, pair, &random),
            [2, 36, 42].contains(opcode) ? 0 : 16 + [0, 80, 104, 128, 144, 4096, 16_384][random.below(7)] + random.below(64))
    }

    private func body(_ opcode: UInt32, _ pair: (node: UInt64, handle: UInt64), _ random: inout SeededRandom) -> [UInt8] {
        let name = Array(Self.names[random.below(Self.names.count)].utf8) + [0]
        let other = Array(Self.names[random.below(Self.names.count)].utf8) + [0]
        let (handle, flags) = (Self.little(pair.handle), Self.little(UInt32(random.below(4))))
        let offset = Self.little(random.oneIn(12) ? random.next() : UInt64(random.below(20_000)))
        let size = random.below(random.oneIn(4) ? 16_384 : 512)
        let nothing = Self.little(UInt64(0))
        switch opcode {
        case 1, 5, 10, 11: return name
        case 2, 36: return Self.little(random.oneIn(3) ? random.next() : UInt64(1 + random.below(3)))
        case 3: return flags + Self.little(UInt32(0)) + handle
        case 4:
            let valid = Self.little(UInt32(random.below(1 << 9)))
            return valid + Self.little(UInt32(0)) + handle + offset + nothing + nothing + nothing + nothing + flags
                + Self.little(UInt32(random.below(0o10000))) + nothing + nothing + nothing
        case 6: return name + other
        case 8:
            let mode: UInt32 = [0o100644, 0o10644, 0o140644, 0o20644][random.below(4)]
            return Self.little(mode) + Self.little(UInt32(0)) + nothing + name
        case 9: return Self.little(UInt32(0o755)) + Self.little(UInt32(0)) + name
        case 12, 13: return Self.little(nodes.randomElement(using: &random) ?? 1) + name + (opcode == 12 ? other : [])
        case 14, 27: return Self.little(UInt32([0, 0, 1, 2, 0o1000, 0o2001][random.below(6)])) + Self.little(UInt32(0))
        case 15, 28, 44: return handle + offset + Self.little(UInt32(size)) + flags + nothing + nothing
        case 16:
            return handle + offset + Self.little(UInt32(size)) + flags + nothing + nothing + [UInt8](repeating: 66, count: size)
        case 18, 29: return handle + flags + Self.little(UInt32(0)) + nothing
        case 20, 30: return handle + flags + Self.little(UInt32(0))
        case 21: return Self.little(UInt32(size % 64)) + flags + name + [UInt8](repeating: 1, count: size % 64)
        case 22, 23: return Self.little(UInt32(size)) + Self.little(UInt32(0)) + (opcode == 22 ? name : [])
        case 24: return name
        case 25: return handle + nothing + Self.little(UInt64(random.below(3)))
        case 31, 32, 33:
            return handle + Self.little(UInt64(random.below(3))) + offset + offset + flags + flags + flags + Self.little(UInt32(0))
        case 35, 51:
            return Self.little(UInt32([1, 2, 0o202][random.below(3)])) + Self.little(UInt32(0o100644)) + nothing + name
        case 42:
            let count = random.below(6)
            return Self.little(UInt32(count)) + Self.little(UInt32(0))
                + (0..<count).flatMap { _ in Self.little(nodes.randomElement(using: &random) ?? 1) + Self.little(UInt64(1)) }
        case 43:
            let mode = Self.little(UInt32(random.below(64)))
            return handle + Self.little(UInt64(size)) + Self.little(UInt64(size)) + mode + Self.little(UInt32(0))
        case 45: return Self.little(nodes.randomElement(using: &random) ?? 1) + flags + Self.little(UInt32(0)) + name + other
        case 46: return handle + offset + Self.little(UInt32(random.below(6))) + Self.little(UInt32(0))
        case 47:
            return handle + Self.little(UInt64(size)) + Self.little(pair.node) + handle + Self.little(UInt64(size))
                + Self.little(UInt64(size)) + nothing
        default: return (0..<random.below(64)).map { _ in UInt8(random.below(256)) }
        }
    }

    /// A request that takes space on the host asks for little, whatever has become of it.
    static func tame(_ bytes: inout [UInt8]) {
        guard bytes.count > 48, bytes[4] == 43 || bytes[4] == 47, bytes[5] == 0 else { return }
        // Behind the header and the handle, of every word no more than two bytes; the second handle of COPY_FILE_RANGE stays.
        for place in 48..<bytes.count where place % 8 > 1 && !(bytes[4] == 47 && (56..<72).contains(place)) { bytes[place] = 0 }
    }

    /// What came back names nodes and handles.
    mutating func hear(_ bytes: [UInt8]) {
        func word(_ place: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(bytes[place + $1]) << UInt64(8 * $1) } }
        guard bytes.count >= 16 else { return }
        // EIO: nothing is mounted.
        if bytes[4] == 0xFB { isMounted = false }
        guard bytes[4..<8].allSatisfy({ $0 == 0 }) else { return }
        let number = word(8)
        let node = opening.removeValue(forKey: UInt16(truncatingIfNeeded: number >> 8))
        if nodes.count > 24 { nodes.remove(at: 1) }
        if handles.count > 24 { handles.removeFirst() }
        switch number & 0xFF {
        case 1, 6, 8, 9, 13: if bytes.count >= 144, word(16) != 0 { nodes.append(word(16)) }
        case 14, 27: if bytes.count >= 32, let node { handles.append((node, word(16))) }
        case 35, 51:
            guard bytes.count >= 160 else { break }
            nodes.append(word(16))
            handles.append((word(16), word(144)))
        case 38: isMounted = false
        default: break
        }
    }
}
