import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Directories: long ones, and ones that change while they are read.
@Suite(.behindEachTransport) struct ShareDirectoryTests {
    private func fill(_ path: String, _ count: Int) {
        for index in 0..<count { close(open("\(path)/file-\(index)", O_CREAT | O_WRONLY, 0o644)) }
    }

    @Test(arguments: [false, true]) func fiveThousandEntries(plus: Bool) throws {
        let rig = try ShareRig { $0.descriptorLimit = 32 }
        fill(rig.tree.share, 5000)
        let expected = Set((0..<5000).map { "file-\($0)" } + [".", ".."])
        for size in plus ? [1000, 4096, 100_000] : [400, 4096, 100_000] {
            let all = try rig.client.allEntries(1, plus: plus, size: size)
            #expect(all.count == 5002 && Set(all.map(\.name)) == expected, "pieces of \(size)")
            #expect(Set(all.map(\.offset)).count == 5002)
            for entry in all where plus {
                let isDots = entry.name == "." || entry.name == ".."
                #expect(entry.entry?.node == 0 ? isDots : entry.entry?.attributes.inode == entry.inode)
            }
        }
        // As often told of as said: forgotten as often, they are gone.
        #expect(rig.client.statistic("inodes") == (plus ? 5001 : 1))
        #expect((rig.device.server?.descriptors ?? .max) <= 16)
        guard plus else { return }
        let all = try rig.client.allEntries(1, plus: true, size: 65_536).compactMap(\.entry).filter { $0.node != 0 }
        for start in stride(from: 0, to: 5000, by: 1000) {
            try rig.client.forget(all[start..<(start + 1000)].map { ($0.node, 3) })
        }
        #expect(rig.client.statistic("inodes") == 5001)
        for start in stride(from: 0, to: 5000, by: 1000) {
            try rig.client.forget(all[start..<(start + 1000)].map { ($0.node, 1) })
        }
        #expect(rig.client.statistic("inodes") == 1)
        #expect(throws: FUSEFailure(ESTALE)) { try rig.client.attributes(all[77].node) }
    }

    /// What is there from beginning to end is listed once, whatever comes and goes.
    @Test func changesWhileItIsRead() throws {
        let rig = try ShareRig()
        let (client, path) = (rig.client, rig.tree.share)
        fill(path, 1000)
        let opened = try client.openDirectory(1)
        var names: [String] = []
        var offset: UInt64 = 0
        var round = 0
        while true {
            let piece = try client.entries(1, opened.handle, from: offset, plus: round % 2 == 0, size: 2048)
            guard let last = piece.last else { break }
            names += piece.map(\.name)
            offset = last.offset
            // Every third goes, others come.
            for index in 0..<4 {
                unlink("\(path)/file-\((round * 4 + index) * 3)")
                close(open("\(path)/new-\(round)-\(index)", O_CREAT | O_WRONLY, 0o644))
            }
            round += 1
            guard round < 5000 else { break }
        }
        let stayed = (0..<1000).filter { $0 % 3 != 0 }.map { "file-\($0)" }
        let listed = Dictionary(grouping: names, by: { $0 }).mapValues(\.count)
        #expect(stayed.allSatisfy { listed[$0] == 1 })
        #expect(listed.values.allSatisfy { $0 == 1 })
        // From an offset once more: what comes behind it.
        let first = try client.entries(1, opened.handle, from: 0, size: 2048)
        let second = try client.entries(1, opened.handle, from: first[3].offset, size: 2048)
        #expect(second.first?.name == first[4].name)
        try client.release(1, opened.handle, isDirectory: true)
    }

    @Test func roomThatIsTooSmall() throws {
        let rig = try ShareRig()
        Tree.write("x", to: rig.tree.share + "/a-rather-long-name")
        let opened = try rig.client.openDirectory(1)
        #expect(throws: FUSEFailure(EINVAL)) { try rig.client.entries(1, opened.handle, from: 0, size: 16) }
        #expect(throws: FUSEFailure(EINVAL)) { try rig.client.entries(1, opened.handle, from: 0, plus: true, size: 100) }
        _ = try errnoOf { _ = try rig.client.entries(1, opened.handle, from: .max, size: 4096) }
        _ = try errnoOf { _ = try rig.client.entries(1, opened.handle, from: 1 << 63, size: 4096) }
        try rig.client.sync(1, opened.handle, isDirectory: true)
        #expect(throws: FUSEFailure(EBADF)) { try rig.client.read(1, opened.handle, at: 0, 10) }
        let (file, handle) = try rig.client.create(1, "f")
        #expect(throws: FUSEFailure(EBADF)) { try rig.client.entries(file.node, handle.handle, from: 0) }
        #expect(throws: FUSEFailure(ENOTDIR)) { try rig.client.openDirectory(file.node) }
    }

    /// Files of other file systems have numbers of their own, and what belongs to the host's kernel is not shown.
    @Test func mountsBelow() throws {
        let tree = Tree()
        let (one, proc) = (tree.share + "/other", tree.share + "/proc")
        mkdir(one, 0o755)
        mkdir(proc, 0o755)
        // Only root can mount, and not everywhere; without, there is nothing to be seen here.
        guard mount("none", one, "tmpfs", 0, nil) == 0 else { return }
        defer { umount2(one, 2) }
        guard mount("none", proc, "proc", 0, nil) == 0 else { return }
        defer { umount2(proc, 2) }
        let rig = try ShareRig(tree)
        let client = rig.client
        let mounted = try client.lookUp(1, "other")
        #expect(mounted.attributes.inode != Tree.status(one).map { UInt64($0.st_ino) }, "another file system's number")
        let (file, opened) = try client.create(mounted.node, "f")
        try client.write(file.node, opened.handle, at: 0, [1])
        #expect(Tree.read(one + "/f") == [1])
        #expect(file.attributes.inode >> 48 != 0)
        #expect(try client.allEntries(mounted.node).first { $0.name == "f" }?.inode == file.attributes.inode)
        try client.release(file.node, opened.handle)

        let barred = try client.lookUp(1, "proc")
        #expect(barred.attributes.mode & 0o170000 == 0o040000)
        for name in ["self", "1", "cpuinfo", "kcore", "\(getpid())"] {
            #expect(throws: FUSEFailure(ENOENT)) { try client.lookUp(barred.node, name) }
        }
        #expect(try client.allEntries(barred.node).isEmpty)
        #expect(throws: FUSEFailure(EACCES)) { try client.create(barred.node, "x") }
        try client.forget(mounted.node)
        try client.forget(file.node)
    }
}
