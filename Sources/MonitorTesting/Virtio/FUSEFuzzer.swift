internal import VMCore
internal import Virtio

/// A guest that speaks FUSE badly: requests of random kinds about files that are there, with bodies, lengths and rooms that are nearly
/// right, or not at all. What a seed does, it does again.
///
/// It takes no space on the host: no request asks for more than a few pages, but for the length of sparse files. It does change
/// modes, the shared directory's among them.
public final class FUSEFuzzer {
    private let client: FUSEClient
    private var random: SeededRandom
    private let buffers: GuestAddress
    private var nodes: [UInt64] = []
    private var handles: [(node: UInt64, handle: UInt64)] = []
    /// Requests so far.
    public private(set) var requests = 0

    private static let batch = 32
    private static let slotBytes = 16_384
    private static let names = [
        "f", "g", "d", "e", "..", ".", "", "d/e", "/", "user.a", "security.capability", String(repeating: "n", count: 300),
    ]

    /// - Parameter client: not mounted, or mounted; its rings have room for 96 descriptors.
    public init(_ client: FUSEClient, seed: UInt64) {
        self.client = client
        random = SeededRandom(seed: seed)
        buffers = client.driver.allocate(Self.batch * Self.slotBytes, alignment: 4096)
    }

    /// Mounts, makes a few files, and sends some 1,500 requests.
    /// - Throws: `FUSEClient.Broken` where an answer is none, or does not come.
    public func runSession() throws {
        try client.mount()
        prepare()
        for _ in 0..<50 {
            for slot in 0..<Self.batch { try addRequest(slot) }
            try client.driver.queues[1].kick()
            _ = try client.wait(for: client.driver.queues[1].outstanding)
        }
    }

    /// Files to ask about, as far as they can be made.
    private func prepare() {
        nodes = [1]
        handles = []
        for name in ["d", "e"] {
            _ = try? client.removeDirectory(1, name)
            if let made = try? client.makeDirectory(1, name) { nodes.append(made.node) }
        }
        for name in ["f", "g", "h"] {
            guard let (file, opened) = try? client.create(1, name) else { continue }
            nodes.append(file.node)
            handles.append((file.node, opened.handle))
        }
        if let opened = try? client.openDirectory(1) { handles.append((1, opened.handle)) }
    }

    private func addRequest(_ slot: Int) throws {
        let opcode = random.oneIn(20) ? UInt32(truncatingIfNeeded: random.next()) : UInt32(1 + random.below(51))
        // Making all of the host's disks safe takes its time, and a session's end is the end of the rest of it.
        if opcode == 50 || opcode == 26 || opcode == 38, !random.oneIn(50) { return }
        requests += 1
        var node = random.oneIn(8) ? random.next() >> UInt64(random.below(64)) : nodes[random.below(nodes.count)]
        var body = Bytes()
        if !handles.isEmpty, !random.oneIn(3) {
            let pair = handles[random.below(handles.count)]
            body.add(pair.handle)
            if !random.oneIn(6) { node = pair.node }
        }
        addBody(&body, opcode)
        let real = UInt32(40 + body.bytes.count)
        let length = random.oneIn(8) ? UInt32(truncatingIfNeeded: random.next() >> UInt64(random.below(64))) : real
        var message = FUSEClient.message(opcode, client.takeUnique(), node: node, body.bytes, length: length)
        if random.oneIn(20) { message = Array(message.prefix(random.below(message.count) + 1)) }
        let base = GuestAddress(buffers.rawValue &+ UInt64(slot * Self.slotBytes))
        try client.memory.write(message, at: base)
        let room = random.oneIn(5) ? random.below(40) : 16 + random.below(8000)
        let split = min(room, random.below(200))
        let target = base.rawValue &+ 4096
        let writable = [
            (address: GuestAddress(target), count: split),
            (address: GuestAddress(target &+ UInt64(split)), count: room - split),
        ]
        _ = try client.driver.queues[1].add([(base, message.count)], writable.filter { $0.count > 0 })
    }

    private func addBody(_ body: inout Bytes, _ opcode: UInt32) {
        // Of FALLOCATE and COPY_FILE_RANGE every word is small: the host's disk is not the fuzzer's to fill.
        let takesSpace = opcode == 43 || opcode == 47
        for _ in 0..<random.below(12) {
            let small = UInt32(random.below(random.oneIn(3) ? 4 : 5000))
            if takesSpace {
                body.add(UInt64(small))
            } else {
                body.add(random.oneIn(6) ? UInt32(truncatingIfNeeded: random.next()) : small)
            }
        }
        guard !takesSpace else { return }
        for _ in 0..<random.below(3) { body.add(name: Self.names[random.below(Self.names.count)]) }
    }
}
