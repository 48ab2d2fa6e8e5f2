import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A guest that keeps no rule: it is answered with errors, and what it can make the host hold has bounds.
@Suite(.behindEachTransport) struct ShareHostileTests {
    @Test func forgettingMoreThanThereIs() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.create(1, "f")
        let directory = try client.makeDirectory(1, "d").node
        let below = try client.makeDirectory(directory, "e").node
        _ = try client.lookUp(1, "f")
        try client.forget(file.node, 1)
        #expect(try client.attributes(file.node).links == 1, "told twice, forgotten once")
        try client.forget(file.node, .max)
        try client.forget(file.node, 1)
        #expect(throws: FUSEFailure(ESTALE)) { try client.attributes(file.node) }
        // What is open is open.
        try client.write(file.node, opened.handle, at: 0, [1, 2])
        #expect(try client.read(file.node, opened.handle, at: 0, 5) == [1, 2])
        #expect(try client.attributes(file.node, handle: opened.handle).size == 2)
        // A number is not used again.
        let again = try client.lookUp(1, "f")
        #expect(again.node != file.node)
        // The root is never forgotten; others are not disturbed by numbers that name nothing.
        try client.forget(1, .max)
        for node in [0, 2, 77, .max, 1 << 32, 1 << 32 | 1, UInt64(UInt32.max)] as [UInt64] { try client.forget(node, .max) }
        #expect(try client.lookUp(1, "d").node == directory)
        // A directory that is forgotten before what is in it.
        try client.forget(directory, .max)
        _ = try errnoOf { _ = try client.attributes(below) }
        try client.forget([(below, 1), (below, 1), (below, .max), (0, 0)], claimed: .max)
        #expect(throws: FUSEFailure(ESTALE)) { try client.attributes(below) }
        try client.forget([], claimed: 1000)
        #expect(client.statistic("inodes") == 2)
        #expect(!rig.needsReset)
    }

    @Test func handlesOfOthers() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (one, first) = try client.create(1, "a")
        let (other, second) = try client.create(1, "b")
        #expect(throws: FUSEFailure(EBADF)) { try client.read(one.node, second.handle, at: 0, 1) }
        #expect(throws: FUSEFailure(EBADF)) { try client.release(other.node, first.handle) }
        #expect(throws: FUSEFailure(EBADF)) {
            try client.copy(one.node, first.handle, at: 0, to: one.node, second.handle, at: 0, 1)
        }
        try client.release(one.node, first.handle)
        #expect(throws: FUSEFailure(EBADF)) { try client.release(one.node, first.handle) }
        let (_, third) = try client.create(1, "c")
        #expect(third.handle != first.handle, "a number that was given back is another's")
        for handle in [0, 1, .max, first.handle, 0x7FFF_0000_0000] as [UInt64] {
            #expect(throws: FUSEFailure(EBADF)) { try client.write(other.node, handle, at: 0, [1]) }
        }
    }

    @Test func openFilesAreBounded() throws {
        let rig = try ShareRig { $0.descriptorLimit = 40 }
        let client = rig.client
        var opened: [(UInt64, UInt64)] = []
        for index in 0..<20 {
            let (file, handle) = try client.create(1, "f\(index)")
            opened.append((file.node, handle.handle))
        }
        #expect(throws: FUSEFailure(ENFILE)) { try client.create(1, "over") }
        #expect(throws: FUSEFailure(ENFILE)) { try client.open(opened[0].0) }
        #expect(throws: FUSEFailure(ENFILE)) { try client.openDirectory(1) }
        #expect(Tree.kind(rig.tree.share + "/over") == 0, "it was not made")
        // Directories and files without names: as many as there is room for, the rest is lost when it is closed.
        for (index, file) in opened.enumerated() {
            try client.unlink(1, "f\(index)")
            _ = try client.attributes(file.0, handle: file.1)
        }
        for index in 0..<100 { _ = try client.makeDirectory(try client.makeDirectory(1, "d\(index)").node, "e") }
        for index in 0..<100 { _ = try client.walk("d\(index)/e") }
        #expect((rig.device.server?.descriptors ?? .max) <= 20)
        for file in opened { try client.release(file.0, file.1) }
        #expect(try client.open(try client.create(1, "new").entry.node).handle != 0)
    }

    @Test func inodesAreBounded() throws {
        let rig = try ShareRig { $0.inodeLimit = 50 }
        let client = rig.client
        var nodes: [UInt64] = []
        for index in 0..<49 { nodes.append(try client.makeDirectory(1, "d\(index)").node) }
        Tree.write("x", to: rig.tree.share + "/f")
        #expect(throws: FUSEFailure(ENFILE)) { try client.lookUp(1, "f") }
        #expect(try client.allEntries(1, plus: true).filter { $0.entry?.node == 0 }.map(\.name).sorted() == [".", "..", "f"])
        try client.forget(nodes[0], 2)
        #expect(try client.lookUp(1, "f").attributes.size == 1)
    }

    /// The process itself has no descriptors left.
    @Test func descriptorsRunOut() async {
        await #expect(processExitsWith: .success) {
            let rig = try ShareRig { $0.descriptorLimit = 10_000 }
            let client = rig.client
            var opened: [(UInt64, UInt64)] = []
            for index in 0..<30 { mkdir(rig.tree.share + "/d\(index)", 0o755) }
            let limits = rlimit(rlim_cur: 64, rlim_max: 64)
            withUnsafePointer(to: limits) { _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), $0) }
            var isRefused = false
            for index in 0..<200 where !isRefused {
                let result = try errnoOf {
                    let (file, handle) = try client.create(try client.lookUp(1, "d\(index % 30)").node, "f\(index)")
                    opened.append((file.node, handle.handle))
                }
                if result != 0 {
                    guard result == ENFILE else { exit(Int32(2)) }
                    isRefused = true
                }
            }
            guard isRefused, opened.count > 20 else { exit(3) }
            // What is open goes on; nothing new is opened. Then there is room again.
            try client.write(opened[5].0, opened[5].1, at: 0, [1])
            guard try errnoOf({ _ = try client.open(opened[0].0) }) == ENFILE else { exit(4) }
            for file in opened { try client.release(file.0, file.1) }
            for index in 0..<30 {
                let node = try client.lookUp(1, "d\(index)").node
                _ = try client.create(node, "again")
            }
            Tree.remove(rig.tree.root)
            exit(0)
        }
    }

    @Test func lengthsThatLie() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.create(1, "f")
        func send(_ opcode: UInt32, node: UInt64, length: UInt32, _ body: [UInt8], room: [Int]) throws -> FUSEClient.Answer? {
            let message = FUSEClient.message(opcode, client.takeUnique(), node: node, body, length: length)
            try client.driver.queues[1].add(readable: [message], writable: room)
            try client.driver.queues[1].kick()
            return try client.wait(for: 1).first
        }
        // Longer than it is, shorter than a header, cut anywhere.
        for length in [0, 1, 39, 40, 41, 1000, .max] as [UInt32] {
            #expect(try send(1, node: 1, length: length, [102, 0], room: [4096])?.error == EINVAL)
        }
        #expect(try send(1, node: 1, length: 42, [102, 0], room: [4096])?.error == 0)
        // A name without an end.
        #expect(try send(1, node: 1, length: 43, [102, 102, 102], room: [4096])?.error == EINVAL)
        // More to write than there is; sizes beyond all bounds.
        for size in [3, 1 << 20, (1 << 20) + 1, .max] as [UInt32] {
            let body = Bytes(opened.handle, UInt64(0), size, UInt32(0), UInt64(0), UInt64(0)).bytes + [1, 2]
            #expect(try send(16, node: file.node, length: UInt32(40 + body.count), body, room: [4096])?.error == EINVAL)
        }
        for offset in [UInt64(Int64.max), .max, 1 << 63] as [UInt64] {
            let body = Bytes(opened.handle, offset, UInt32(2), UInt32(0), UInt64(0), UInt64(0)).bytes + [1, 2]
            #expect(try send(16, node: file.node, length: UInt32(40 + body.count), body, room: [4096])?.error != 0)
            let read = Bytes(opened.handle, offset, UInt32.max, UInt32(0), UInt64(0), UInt64(0)).bytes
            let answer = try send(15, node: file.node, length: UInt32(40 + read.count), read, room: [100_000])
            #expect(answer?.error == EINVAL || answer?.bytes == [])
        }
        #expect(try client.attributes(file.node).size == 0)
        // No room for an answer, or not enough: nothing is done.
        for room in [[], [1], [15], [16], [16, 100], [10, 10, 10]] as [[Int]] {
            let answer = try send(9, node: 1, length: 40 + 10, Bytes(UInt32(0o755), UInt32(0)).bytes + [120, 0], room: room)
            let total = room.reduce(0, +)
            #expect(total < 16 ? answer == nil : answer?.error == EINVAL)
            #expect(Tree.kind(rig.tree.share + "/x") == 0)
        }
        // Unknown requests.
        for opcode in [0, 7, 19, 37, 39, 40, 41, 48, 49, 52, 4096, .max] as [UInt32] {
            #expect(try send(opcode, node: 1, length: 40, [], room: [4096])?.error == ENOSYS)
        }
        #expect(try send(34, node: 1, length: 48, Bytes(UInt64(7)).bytes, room: [16])?.error == ENOSYS, "access")
        for node in [0, 3, .max] as [UInt64] {
            #expect(try send(1, node: node, length: 42, [102, 0], room: [4096])?.error == ESTALE)
        }
        // A chain that is no request at all.
        try client.driver.queues[1].add(writable: [64])
        try client.driver.queues[1].add(readable: [[1, 2, 3]], writable: [64])
        try client.driver.queues[1].kick()
        #expect(try client.wait(for: 2).isEmpty)
        #expect(!rig.needsReset)
    }

    /// One call that asks for more than the host's disk has takes nothing of it.
    @Test func spaceThatIsNotThere() throws {
        let rig = try ShareRig()
        let (file, opened) = try rig.client.create(1, "f")
        var host = statvfs()
        statvfs(rig.tree.share, &host)
        for length in [UInt64(host.f_blocks) * UInt64(host.f_frsize) + 1, 1 << 50, UInt64(Int64.max), .max] {
            for mode in [0, 1, 0x10, 0x11] as [UInt32] {
                let result = try errnoOf { try rig.client.allocate(file.node, opened.handle, mode: mode, at: 0, length) }
                #expect(result == ENOSPC || result == EFBIG)
            }
        }
        #expect(throws: FUSEFailure(EOPNOTSUPP)) { try rig.client.allocate(file.node, opened.handle, mode: 0x40, at: 0, 1) }
        try rig.client.allocate(file.node, opened.handle, mode: 1, at: 0, 8192)
        let found = try rig.client.attributes(file.node)
        #expect(found.size == 0 && found.blocks == 16)
    }

    /// Buffers of any lengths, one byte among them.
    @Test func buffersMayBeCutAnywhere() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.create(1, "f")
        let data = (0..<3000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        let body = Bytes(opened.handle, UInt64(0), UInt32(3000), UInt32(0), UInt64(0), UInt64(0)).bytes + data
        let message = FUSEClient.message(16, client.takeUnique(), node: file.node, body)
        var random = SeededRandom(seed: 9)
        func cut(_ count: Int) -> [Int] {
            var parts: [Int] = []
            var rest = count
            while rest > 0 {
                parts.append(min(rest, 1 + random.below(random.oneIn(2) ? 3 : 200)))
                rest -= parts[parts.count - 1]
            }
            return parts
        }
        for _ in 0..<5 {
            var place = 0
            let pieces = cut(message.count).map { count in
                defer { place += count }
                return Array(message[place..<(place + count)])
            }
            try client.driver.queues[1].add(readable: pieces, writable: cut(24))
            try client.driver.queues[1].kick()
            #expect(try client.wait(for: 1).first?.bytes == [0xB8, 0x0B, 0, 0, 0, 0, 0, 0])
            let read = FUSEClient.message(
                15, client.takeUnique(), node: file.node,
                Bytes(opened.handle, UInt64(7), UInt32(5000), UInt32(0), UInt64(0), UInt64(0)).bytes)
            try client.driver.queues[1].add(readable: [read], writable: cut(5016))
            try client.driver.queues[1].kick()
            #expect(try client.wait(for: 1).first?.bytes == Array(data[7...]))
        }
    }

    /// 100,000 requests that are nearly right, and many that are not.
    @Test(arguments: TransportKind.allCases) func malformedRequests(kind: TransportKind) throws {
        let rig = try ShareRig(transport: kind, ring: []) {
            $0.sharesLocks = kind == .pci
            $0.descriptorLimit = 200
            $0.inodeLimit = 500
        }
        let client = rig.client
        let fuzzer = FUSEFuzzer(client, seed: kind == .pci ? 77 : 78)
        while fuzzer.requests < 50_000 {
            // The modes of what is shared are the guest's to set, the directory's own among them.
            chmod(rig.tree.share, 0o755)
            try fuzzer.runSession()
        }
        #expect(!rig.needsReset)
        try client.mount()
        chmod(rig.tree.share, 0o755)
        #expect(client.statistic("inodes") == 1 && client.statistic("openFiles") == 0)
        #expect((rig.device.server?.descriptors ?? .max) <= 100 && rig.device.requestsMade <= 81)
        #expect(try client.create(1, "works").entry.attributes.size == 0)
        #expect(Tree.names(rig.tree.root) == ["outside", "share", "twin"])
        #expect(Tree.text(rig.tree.outside + "/secret") == "secret")
    }
}
