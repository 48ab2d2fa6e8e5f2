import Glibc
import VMCore
import Virtio

// What a share's requests take, one at a time and several at once, with the threads that a machine has: one that notifies and sleeps
// until it is interrupted, and an event loop of its own. See README.md.

/// One request: its bytes and the room for its answer.
struct Message {
    var bytes: [UInt8]
    var room: Int
}

/// A guest's side of one queue, written straight into memory.
final class Guest {
    static let slots = 64
    private static let descriptors: UInt64 = 0x10_0000, available: UInt64 = 0x11_0000, used: UInt64 = 0x12_0000
    private static let requests: UInt64 = 0x20_0000, answers: UInt64 = 0x100_0000, answerBytes = 128 << 10

    private let memory: GuestMemory
    private let base: UnsafeMutableRawPointer
    private let transport: MMIOTransport
    private let wire = Wire()
    private var index: UInt16 = 0
    private var unique: UInt64 = 0
    let device: FileSystemDevice

    init(_ directory: String, _ loop: LoopThread) throws {
        memory = try GuestMemory(size: 64 << 20)
        base = memory.hostBytes(at: GuestAddress(0), count: 64 << 20)!.baseAddress!
        device = try FileSystemDevice(directory: directory, tag: "t", isReadOnly: true, events: loop, clock: loop)
        transport = MMIOTransport(device: device, memory: memory, line: wire)
        func write(_ offset: UInt64, _ value: UInt32) { transport.write(offset: offset, width: .long, value: UInt64(value)) }
        for status in [0, 1, 3] as [UInt32] { write(0x70, status) }
        write(0x24, 1)
        write(0x20, 1)
        write(0x70, 11)
        write(0x30, 1)
        write(0x38, UInt32(Self.slots * 2))
        write(0x80, UInt32(Self.descriptors))
        write(0x90, UInt32(Self.available))
        write(0xA0, UInt32(Self.used))
        write(0x44, 1)
        write(0x70, 15)
        let hello = words(7, 38, 131_072, 0x7FFF_FFFF) + [UInt8](repeating: 0, count: 48)
        _ = try one(Message(bytes: request(26, 0, hello), room: 80))
    }

    private func store<Value>(_ value: Value, _ address: UInt64) {
        base.storeBytes(of: value, toByteOffset: Int(address), as: Value.self)
    }

    func answer(_ slot: Int) -> UnsafeRawBufferPointer {
        let start = base + Int(Self.answers) + slot * Self.answerBytes
        return UnsafeRawBufferPointer(start: start, count: Int(start.load(as: UInt32.self)))
    }

    /// Makes requests available at once, notifies, and sleeps until all are back.
    func send(_ messages: ArraySlice<Message>) {
        for (slot, message) in messages.enumerated() {
            let place = Self.requests + UInt64(slot) * 8192
            message.bytes.withUnsafeBytes { (base + Int(place)).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            let descriptor = Self.descriptors + UInt64(slot) * 32
            store(place, descriptor)
            store(UInt32(message.bytes.count), descriptor + 8)
            store(UInt32(1 | (slot * 2 + 1) << 16), descriptor + 12)
            store(Self.answers + UInt64(slot * Self.answerBytes), descriptor + 16)
            store(UInt32(message.room + 16), descriptor + 24)
            store(UInt32(2), descriptor + 28)
            store(UInt16(slot * 2), Self.available + 4 + UInt64(index & UInt16(Self.slots * 2 - 1)) * 2)
            index &+= 1
        }
        store(index, Self.available + 2)
        transport.write(offset: MMIOTransport.notifyOffset, width: .long, value: 1)
        while base.load(fromByteOffset: Int(Self.used + 2), as: UInt16.self) != index {
            wire.wait()
            transport.write(offset: 0x64, width: .long, value: 3)
        }
    }

    func request(_ opcode: UInt32, _ node: UInt64, _ body: [UInt8]) -> [UInt8] {
        unique += 2
        return words(UInt32(40 + body.count), opcode) + quads(unique, node) + words(0, 0, 1, 0) + body
    }

    func one(_ message: Message) throws -> UnsafeRawBufferPointer {
        send([message])
        let answer = answer(0)
        let error = answer.load(fromByteOffset: 4, as: Int32.self)
        guard error == 0 else { fatalError("an error: \(error)") }
        return answer
    }
}

func words(_ values: UInt32...) -> [UInt8] { values.flatMap { withUnsafeBytes(of: $0, Array.init) } }
func quads(_ values: UInt64...) -> [UInt8] { values.flatMap { withUnsafeBytes(of: $0, Array.init) } }

func wallClock() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// 200 directories with 100 files of 4 KiB each.
func makeTree() -> String {
    var template = Array("/tmp/windhover-bench-XXXXXX".utf8CString)
    let root = String(cString: mkdtemp(&template))
    let data = [UInt8](repeating: 65, count: 4096)
    for directory in 0..<200 {
        mkdir("\(root)/d\(directory)", 0o755)
        for file in 0..<100 {
            let descriptor = open("\(root)/d\(directory)/file\(file)", O_CREAT | O_WRONLY, 0o644)
            guard write(descriptor, data, data.count) == data.count else { fatalError("no room in /tmp") }
            close(descriptor)
        }
    }
    return root
}

/// Best of three rounds, in nanoseconds a request.
func measure(_ name: String, _ guest: Guest, _ messages: [Message], depth: Int, entries: Int? = nil) -> UInt64 {
    var best = UInt64.max
    for _ in 0..<3 {
        let start = wallClock()
        var place = 0
        while place < messages.count {
            let end = min(place + depth, messages.count)
            guest.send(messages[place..<end])
            place = end
        }
        best = min(best, (wallClock() - start) / UInt64(entries ?? messages.count))
    }
    print("\(name), \(depth) at once: \(1_000_000_000 / max(best, 1)) a second, \(best) ns each")
    return best
}

@main struct ShareRequests {
    static func main() throws {
        let root = makeTree()
        defer { _ = system("rm -rf '\(root)'") }
        let guest = try Guest(root, LoopThread())
        func text(_ name: String) -> [UInt8] { Array(name.utf8) + [0] }
        var directories: [UInt64] = []
        var lookups: [Message] = []
        for directory in 0..<200 {
            let found = try guest.one(Message(bytes: guest.request(1, 1, text("d\(directory)")), room: 128))
            let node = found.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
            directories.append(node)
            for file in 0..<100 { lookups.append(Message(bytes: guest.request(1, node, text("file\(file)")), room: 128)) }
        }
        let nothing = (0..<20_000).map { _ in Message(bytes: guest.request(4095, 1, []), room: 16) }
        let files = try lookups.map { try guest.one($0).loadUnaligned(fromByteOffset: 16, as: UInt64.self) }
        let attributes = files.map { Message(bytes: guest.request(3, $0, [UInt8](repeating: 0, count: 16)), room: 104) }
        for depth in [1, 32] {
            _ = measure("a request that is none", guest, nothing, depth: depth)
            _ = measure("LOOKUP", guest, lookups, depth: depth)
            _ = measure("GETATTR", guest, attributes, depth: depth)
        }
        // One file after the other, as a program does it.
        var best = UInt64.max
        for _ in 0..<3 {
            let start = wallClock()
            for file in files {
                let handle = try guest.one(Message(bytes: guest.request(14, file, words(0, 0)), room: 16))
                    .loadUnaligned(fromByteOffset: 16, as: UInt64.self)
                let body = quads(handle, 0) + words(4096, 0) + quads(0) + words(0, 0)
                _ = try guest.one(Message(bytes: guest.request(15, file, body), room: 4096))
                let last = quads(handle) + words(0, 0) + quads(0)
                _ = try guest.one(Message(bytes: guest.request(18, file, last), room: 0))
            }
            best = min(best, (wallClock() - start) / UInt64(files.count))
        }
        print("OPEN, READ of 4 KiB and RELEASE: \(1_000_000_000 / best) files a second, \(best) ns each")
        best = .max
        for _ in 0..<3 {
            var entries: UInt64 = 0
            let start = wallClock()
            for directory in directories {
                let handle = try guest.one(Message(bytes: guest.request(27, directory, words(0, 0)), room: 16))
                    .loadUnaligned(fromByteOffset: 16, as: UInt64.self)
                var offset: UInt64 = 0
                while true {
                    let body = quads(handle, offset) + words(32_768, 0) + quads(0) + words(0, 0)
                    let answer = try guest.one(Message(bytes: guest.request(44, directory, body), room: 32_768))
                    var place = 16
                    while place < answer.count {
                        offset = answer.loadUnaligned(fromByteOffset: place + 136, as: UInt64.self)
                        let length = Int(answer.loadUnaligned(fromByteOffset: place + 144, as: UInt32.self))
                        place += (152 + length + 7) & ~7
                        entries += 1
                    }
                    if answer.count == 16 { break }
                }
                let last = quads(handle) + words(0, 0) + quads(0)
                _ = try guest.one(Message(bytes: guest.request(29, directory, last), room: 0))
            }
            guard entries == 20_400 else { fatalError("\(entries) entries") }
            best = min(best, (wallClock() - start) / entries)
        }
        print("READDIRPLUS of 100 files: \(1_000_000_000 / best) entries a second, \(best) ns each")
    }
}
