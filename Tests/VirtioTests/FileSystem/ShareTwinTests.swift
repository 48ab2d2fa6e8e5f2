import CHost
import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// What is done through a share has the same results and the same errors as what is done on the host.
@Suite(.behindEachTransport) struct ShareTwinTests {
    @Test func theWholeExercise() throws {
        let rig = try ShareRig()
        let (client, twin, share) = (rig.client, rig.tree.twin, rig.tree.share)
        let directory = try client.makeDirectory(1, "d", mode: 0o750)
        mkdir(twin + "/d", 0o750)
        let (file, opened) = try client.create(directory.node, "f", mode: 0o640)
        let host = open(twin + "/d/f", O_RDWR | O_CREAT | O_EXCL, 0o640)
        defer { close(host) }

        // Sparse, written in pieces, cut.
        let data = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        for offset in [0, 1 << 20, 5 << 20] as [UInt64] {
            try client.write(file.node, opened.handle, at: offset, data)
            #expect(pwrite(host, data, data.count, off_t(offset)) == data.count)
        }
        try client.allocate(file.node, opened.handle, mode: 3, at: 4096, 16_384)
        try client.change(file.node) { $0.size = (5 << 20) + 1000 }
        ftruncate(host, (5 << 20) + 1000)
        var zeros = [UInt8](repeating: 0, count: 16_384)
        pwrite(host, &zeros, zeros.count, 4096)
        let places: [(UInt64, UInt32)] = [(0, 3), (0, 4), (100_000, 3), (200_000, 4), ((5 << 20) + 999, 3), (6 << 20, 3)]
        for (offset, whence) in places {
            // Where the holes are differs, for one of the two was punched; that something is found does not.
            let found = try errnoOf { _ = try client.seek(file.node, opened.handle, to: offset, whence: whence) }
            #expect(found == (lseek(host, off_t(offset), Int32(whence)) >= 0 ? 0 : errno))
        }
        #expect(try client.seek(file.node, opened.handle, to: 200_000, whence: 3) == 1 << 20)
        try client.sync(file.node, opened.handle)
        try client.sync(file.node, opened.handle, dataOnly: true)
        try client.flush(file.node, opened.handle)
        try client.syncFileSystem()
        #expect(try difference(of: client.read(file.node, opened.handle, at: (5 << 20) + 900, 4096), from: Array(data[900..<1000])) == nil)

        // Links, modes, times, attributes.
        #expect(try client.link(file.node, 1, "hard").attributes.links == 2)
        link(twin + "/d/f", twin + "/hard")
        let soft = try client.symbolicLink(1, "soft", to: "../../etc/passwd")
        symlink("../../etc/passwd", twin + "/soft")
        #expect(try client.readLink(soft.node) == "../../etc/passwd")
        #expect(try client.link(soft.node, 1, "soft2").node == soft.node)
        link(twin + "/soft", twin + "/soft2")
        #expect(try client.change(file.node) { $0.mode = 0o4711 }.mode == 0o104711)
        chmod(twin + "/d/f", 0o4711)
        let timed = try client.change(file.node) {
            $0.accessed = (1_000_000_000, 5)
            $0.modified = (UInt64(bitPattern: -100), 999_999_999)
        }
        #expect(timed.accessed == 1_000_000_000 && timed.accessedNanoseconds == 5)
        #expect(Int64(bitPattern: timed.modified) == -100 && timed.modifiedNanoseconds == 999_999_999)
        #expect(try client.change(soft.node) { $0.modified = (77, 0) }.modified == 77, "a link's own times")
        try client.set(attribute: "user.test", [1, 2, 3], of: file.node)
        Tree.set(attribute: "user.test", [1, 2, 3], of: twin + "/d/f")
        let fifo = try client.makeNode(1, "fifo", mode: 0o010640)
        mkfifo(twin + "/fifo", 0o640)
        #expect(fifo.attributes.mode == 0o010640)
        _ = try client.makeNode(1, "socket", mode: 0o140600)
        mknod(twin + "/socket", 0o140600, 0)
        _ = try client.makeNode(1, "plain", mode: 0o100600)
        mknod(twin + "/plain", 0o100600, 0)
        #expect(Tree.snapshot(share) == Tree.snapshot(twin))

        // Copies and names.
        let (copy, copied) = try client.create(1, "copy")
        #expect(try client.copy(file.node, opened.handle, at: 10, to: copy.node, copied.handle, at: 0, 1000) == 1000)
        Tree.write(Array(data[10..<1010]), to: twin + "/copy")
        try client.rename(1, "copy", directory.node, "moved")
        Glibc.rename(twin + "/copy", twin + "/d/moved")
        try client.rename2(directory.node, "moved", 1, "hard", flags: 2)
        #expect(throws: FUSEFailure(EEXIST)) { try client.rename2(directory.node, "moved", 1, "hard", flags: 1) }
        #expect(try client.attributes(copy.node).links == 1)
        Glibc.rename(twin + "/d/moved", twin + "/x")
        Glibc.rename(twin + "/hard", twin + "/d/moved")
        Glibc.rename(twin + "/x", twin + "/hard")
        try client.unlink(directory.node, "f")
        unlink(twin + "/d/f")
        #expect(throws: FUSEFailure(ENOTEMPTY)) { try client.removeDirectory(1, "d") }
        #expect(Tree.snapshot(share) == Tree.snapshot(twin))
    }

    @Test func attributesAreTheHosts() throws {
        let rig = try ShareRig()
        Tree.write("hello", to: rig.tree.share + "/f")
        let found = try rig.client.lookUp(1, "f").attributes
        let status = try #require(Tree.status(rig.tree.share + "/f"))
        #expect(found.inode == status.st_ino && found.size == 5 && found.blocks == UInt64(status.st_blocks))
        #expect(found.mode == status.st_mode && found.links == 1 && found.blockSize == UInt32(status.st_blksize))
        #expect(Int(found.modified) == status.st_mtim.tv_sec && Int(found.modifiedNanoseconds) == status.st_mtim.tv_nsec)
        // The guest has masked the mode; the host's process does not do so again.
        #expect(try rig.client.makeDirectory(1, "open", mode: 0o1777).attributes.mode == 0o041777)
        #expect(try rig.client.create(1, "all", mode: 0o666).entry.attributes.mode == 0o100666)
        let space = try rig.client.space()
        var host = statvfs()
        statvfs(rig.tree.share, &host)
        #expect(space.words[0] == UInt64(host.f_blocks) && space.halves[0] == UInt32(host.f_bsize) && space.halves[1] == 255)
    }

    /// Random operations on a few names, on both sides.
    @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64]) func randomOperations(seed: UInt64) throws {
        let rig = try ShareRig { $0.descriptorLimit = seed % 2 == 0 ? 16 : 1000 }
        let (client, twin) = (rig.client, rig.tree.twin)
        var random = SeededRandom(seed: seed)
        let directories = ["", "a", "b", "a/c", "b/a"]
        let names = ["a", "b", "c", "f", "g"]

        /// As the host resolves a path: links here lead nowhere.
        func node(_ path: String, isParent: Bool = false) throws -> UInt64 {
            var current: UInt64 = 1
            for part in path.split(separator: "/") {
                let entry = try client.lookUp(current, String(part))
                if entry.attributes.mode & UInt32(S_IFMT) == UInt32(S_IFLNK) { throw FUSEFailure(ENOENT) }
                if isParent, entry.attributes.mode & UInt32(S_IFMT) != UInt32(S_IFDIR) { throw FUSEFailure(ENOTDIR) }
                current = entry.node
            }
            return current
        }

        for step in 0..<400 {
            let (one, other) = (directories[random.below(5)], directories[random.below(5)])
            let (name, new) = (names[random.below(5)], names[random.below(5)])
            let (path, target) = (twin + "/" + one + "/" + name, twin + "/" + other + "/" + new)
            let kind = random.below(13)
            let size = UInt64(random.below(20_000))
            let here = try errnoOf {
                switch kind {
                case 0, 1: _ = try client.makeDirectory(try node(one, isParent: true), name)
                case 2, 3:
                    let (file, opened) = try client.create(try node(one, isParent: true), name, flags: 0o300 | 1)
                    try client.write(file.node, opened.handle, at: 3, Array("\(step)".utf8))
                    try client.release(file.node, opened.handle)
                case 4: try client.unlink(try node(one, isParent: true), name)
                case 5: try client.removeDirectory(try node(one, isParent: true), name)
                case 6: try client.rename(try node(one, isParent: true), name, try node(other, isParent: true), new)
                case 7: try client.rename2(try node(one, isParent: true), name, try node(other, isParent: true), new, flags: 1)
                case 8: try client.rename2(try node(one, isParent: true), name, try node(other, isParent: true), new, flags: 2)
                case 9:
                    let from = try client.lookUp(try node(one, isParent: true), name)
                    _ = try client.link(from.node, try node(other, isParent: true), new)
                case 10: _ = try client.symbolicLink(try node(one, isParent: true), name, to: "nowhere")
                case 11: try client.change(try node(one + "/" + name)) { $0.mode = 0o700 | UInt32(size & 0o77) }
                default:
                    try client.change(try node(one + "/" + name)) { $0.size = size }
                }
            }
            let there = errnoOf { () -> Int32 in
                switch kind {
                case 0, 1: return mkdir(path, 0o755)
                case 2, 3:
                    let file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644)
                    guard file >= 0 else { return -1 }
                    pwrite(file, "\(step)", "\(step)".utf8.count, 3)
                    return close(file)
                case 4: return unlink(path)
                case 5: return rmdir(path)
                case 6: return Glibc.rename(path, target)
                case 7: return renameAt2(path, target, 1)
                case 8: return renameAt2(path, target, 2)
                case 9: return linkat(AT_FDCWD, path, AT_FDCWD, target, 0)
                case 10: return symlink("nowhere", path)
                case 11: return chmod(path, 0o700 | mode_t(size & 0o77))
                default: return truncate(path, off_t(size))
                }
            }
            #expect(here == there, "seed \(seed), step \(step): operation \(kind) of \(one)/\(name), \(other)/\(new)")
        }
        #expect(Tree.snapshot(rig.tree.share) == Tree.snapshot(twin), "seed \(seed)")
        #expect((rig.device.server?.descriptors ?? .max) <= 500)
    }

    @Test func aFileLivesUntilItIsClosed() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.create(1, "f")
        try client.write(file.node, opened.handle, at: 0, Array("still here".utf8))
        try client.unlink(1, "f")
        #expect(throws: FUSEFailure(ENOENT)) { try client.lookUp(1, "f") }
        // By its handle and by its number, which has no name any more.
        #expect(try client.read(file.node, opened.handle, at: 6, 10) == Array("here".utf8))
        #expect(try client.attributes(file.node).links == 0)
        #expect(try client.change(file.node) { $0.size = 5 }.size == 5)
        let again = try client.open(file.node)
        #expect(try client.read(file.node, again.handle, at: 0, 10) == Array("still".utf8))
        // One of the same name is another.
        let (new, _) = try client.create(1, "f")
        #expect(new.node != file.node)
        try client.release(file.node, opened.handle)
        try client.release(file.node, again.handle)
        try client.forget(file.node)
        #expect(throws: FUSEFailure(ESTALE)) { try client.attributes(file.node) }
        // One that another takes the place of, likewise.
        let (old, handle) = try client.create(1, "g")
        try client.rename(1, "f", 1, "g")
        #expect(try client.attributes(old.node, handle: handle.handle).links == 0)
        #expect(try client.attributes(old.node).links == 0)
        #expect(try client.lookUp(1, "g").node == new.node)
    }

    @Test func filesWithoutNames() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.temporaryFile(1)
        try client.write(file.node, opened.handle, at: 0, Array("x".utf8))
        #expect(try client.attributes(file.node).links == 0)
        #expect(Tree.names(rig.tree.share).isEmpty)
        #expect(try client.link(file.node, 1, "named").node == file.node)
        #expect(Tree.text(rig.tree.share + "/named") == "x")
    }

    @Test func extendedAttributes() throws {
        let rig = try ShareRig()
        let client = rig.client
        let node = try client.create(1, "f").entry.node
        let path = rig.tree.share + "/f"
        #expect(try client.attributeNames(of: node).isEmpty)
        try client.set(attribute: "user.a", [1, 2, 3], of: node)
        try client.set(attribute: "user.b", [], of: node, flags: 1)
        #expect(throws: FUSEFailure(EEXIST)) { try client.set(attribute: "user.a", [4], of: node, flags: 1) }
        #expect(throws: FUSEFailure(ENODATA)) { try client.set(attribute: "user.c", [4], of: node, flags: 2) }
        #expect(try client.attribute("user.a", of: node) == [1, 2, 3])
        #expect(try client.attribute("user.a", of: node, size: 0) == [3, 0, 0, 0, 0, 0, 0, 0])
        #expect(throws: FUSEFailure(ERANGE)) { try client.attribute("user.a", of: node, size: 2) }
        #expect(throws: FUSEFailure(ENODATA)) { try client.attribute("user.c", of: node) }
        #expect(Set(try client.attributeNames(of: node)) == ["user.a", "user.b"])
        #expect(throws: FUSEFailure(ERANGE)) { try client.attributeNames(of: node, size: 3) }
        var value = [UInt8](repeating: 0, count: 8)
        #expect(Tree.attribute("user.a", of: path, &value) == 3)
        try client.remove(attribute: "user.a", of: node)
        #expect(try client.attributeNames(of: node) == ["user.b"])
        // Privileges and labels are not the guest's to give.
        for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "security.selinux", "x"] {
            #expect(throws: FUSEFailure(EOPNOTSUPP)) { try client.set(attribute: name, [1], of: node) }
            #expect(throws: FUSEFailure(EOPNOTSUPP)) { try client.remove(attribute: name, of: node) }
        }
        #expect(throws: FUSEFailure(ENODATA)) { try client.attribute("security.capability", of: node) }
        #expect(throws: FUSEFailure(EOPNOTSUPP)) { try client.attribute("trusted.x", of: node) }
    }

    @Test func privilegesEndWithAWrite() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.create(1, "f")
        try client.change(file.node) { $0.mode = 0o6755 }
        try client.write(file.node, opened.handle, at: 0, [1], flags: 4)
        #expect(try client.attributes(file.node).mode == 0o100755)
        try client.change(file.node) { $0.mode = 0o6755 }
        #expect(try client.change(file.node) { $0.size = 0; $0.bits = 1 << 11 }.mode == 0o100755)
    }
}

/// renameat2(2) of two paths, as the C library's calls return it.
private func renameAt2(_ old: String, _ new: String, _ flags: UInt32) -> Int32 {
    let result = chost_file_rename(AT_FDCWD, old, AT_FDCWD, new, flags)
    errno = result < 0 ? -result : 0
    return result < 0 ? -1 : 0
}
