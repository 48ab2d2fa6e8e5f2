import CHost
import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A guest that wants out of the directory, or wants the host to open what must not be opened.
@Suite struct ShareContainmentTests {
    @Test func namesThatAreNone() throws {
        let rig = try ShareRig()
        let client = rig.client
        let directory = try client.makeDirectory(1, "d").node
        Tree.write("x", to: rig.tree.share + "/f")
        let long = String(repeating: "x", count: 256)
        let longer = String(repeating: "x", count: 5000)
        for name in ["..", ".", "", "/", "/etc/passwd", "../outside/secret", "d/..", "d/x", long, longer] {
            let expected: Int32 = name.count > 255 ? ENAMETOOLONG : EINVAL
            for parent in [1, directory] {
                let calls: [(String, () throws -> Void)] = [
                    ("look-up", { _ = try client.lookUp(parent, name) }),
                    ("mkdir", { _ = try client.makeDirectory(parent, name) }),
                    ("mknod", { _ = try client.makeNode(parent, name, mode: 0o100644) }),
                    ("symlink", { _ = try client.symbolicLink(parent, name, to: "x") }),
                    ("create", { _ = try client.create(parent, name) }),
                    ("unlink", { try client.unlink(parent, name) }),
                    ("rmdir", { try client.removeDirectory(parent, name) }),
                    ("rename", { try client.rename(parent, name, 1, "new") }),
                    ("rename to", { try client.rename(1, "f", parent, name) }),
                    ("exchange", { try client.rename2(1, "f", parent, name, flags: 2) }),
                    ("link", { _ = try client.link(try client.lookUp(1, "f").node, parent, name) }),
                ]
                for (what, call) in calls { #expect(try errnoOf(call) == expected, "\(what) of \(name.prefix(20))") }
            }
        }
        #expect(Tree.names(rig.tree.share) == ["d", "f"] && Tree.names(rig.tree.outside) == ["secret"])
    }

    /// Links are data: what they say is the guest's to follow, in its own tree.
    @Test func linksAreNotFollowed() throws {
        let rig = try ShareRig()
        let (client, share) = (rig.client, rig.tree.share)
        let links = [
            "/", "/etc/passwd", "..", "../outside", "../outside/secret", "/proc/self/root", "/proc/self/fd/0", "/proc/self/cwd",
        ]
        for (index, target) in links.enumerated() {
            symlink(target, "\(share)/l\(index)")
            let link = try client.lookUp(1, "l\(index)")
            #expect(link.attributes.mode & 0o170000 == 0o120000)
            #expect(try client.readLink(link.node) == target)
            #expect(throws: FUSEFailure(ENOTDIR)) { try client.lookUp(link.node, "passwd") }
            #expect(throws: FUSEFailure(ENOTDIR)) { try client.openDirectory(link.node) }
            #expect(throws: FUSEFailure(ENOTDIR)) { try client.makeDirectory(link.node, "x") }
            #expect(throws: FUSEFailure(ELOOP)) { try client.open(link.node, flags: 0) }
            #expect(throws: FUSEFailure(EINVAL)) { try client.change(link.node) { $0.size = 0 } }
            #expect(throws: FUSEFailure(EOPNOTSUPP)) { try client.change(link.node) { $0.mode = 0o777 } }
            #expect(throws: FUSEFailure(ELOOP)) { try client.create(1, "l\(index)", flags: 2) }
            #expect(try client.change(link.node) { $0.user = 0 }.mode & 0o170000 == 0o120000)
            #expect(throws: (any Error).self) { try client.set(attribute: "user.x", [1], of: link.node) }
        }
        #expect(Tree.text(rig.tree.outside + "/secret") == "secret")
    }

    /// FIFOs, sockets and device nodes are names. No call on them blocks, and nobody gets to what is behind them.
    @Test func specialFilesAreNotOpened() throws {
        let rig = try ShareRig()
        let (client, share) = (rig.client, rig.tree.share)
        mkfifo(share + "/fifo", 0o666)
        _ = try client.makeNode(1, "socket", mode: 0o140666)
        var names = ["fifo", "socket"]
        if geteuid() == 0, mknod(share + "/null", S_IFCHR | 0o666, 0x103) == 0 { names.append("null") }
        for name in names {
            let node = try client.lookUp(1, name).node
            for flags in [0, 1, 2, 0o4000, 0o1000 | 1] as [UInt32] {
                #expect(throws: FUSEFailure(EACCES)) { try client.open(node, flags: flags) }
                #expect(throws: FUSEFailure(EACCES)) { try client.create(1, name, flags: flags) }
            }
            #expect(throws: FUSEFailure(EINVAL)) { try client.change(node) { $0.size = 0 } }
            #expect(try client.attributes(node).links == 1)
            #expect(try client.change(node) { $0.mode = 0o600 }.mode & 0o777 == 0o600)
        }
        for kind in [0o020000, 0o060000, 0o040000, 0o120000, 0] as [UInt32] {
            let result = try errnoOf { _ = try client.makeNode(1, "device", mode: kind | 0o666, rawDevice: 0x103) }
            #expect(result == EPERM)
        }
        #expect(Tree.kind(share + "/device") == 0)
    }

    /// Another thread puts links, FIFOs and other directories where the guest looks, all the time.
    @Test func whatIsSwappedUnderneath() throws {
        let rig = try ShareRig { $0.descriptorLimit = 16 }
        let (client, share, outside) = (rig.client, rig.tree.share, rig.tree.outside)
        mkdir(share + "/real", 0o755)
        Tree.write("inside", to: share + "/real/secret")
        Tree.write("inside", to: share + "/file")
        mkfifo(share + "/pipe", 0o644)
        symlink(outside, share + "/link")
        symlink(outside + "/secret", share + "/filelink")
        try withExtendedLifetime(rig) {
            let stop = StopFlag()
            #expect(WorkerThread.start {
                while !stop.isSet {
                    // `d` is a directory, then a link out; `f` a file, then a link out, then a FIFO.
                    _ = chost_file_rename(AT_FDCWD, share + "/real", AT_FDCWD, share + "/link", 2)
                    _ = chost_file_rename(AT_FDCWD, share + "/file", AT_FDCWD, share + "/filelink", 2)
                    _ = chost_file_rename(AT_FDCWD, share + "/file", AT_FDCWD, share + "/pipe", 2)
                }
                stop.hasEnded = true
            })
            defer {
                stop.isSet = true
                while !stop.hasEnded { usleep(1000) }
            }
            var read = 0
            for round in 0..<250 {
                // Whatever error, but never the bytes of the file outside.
                for path in ["real/secret", "link/secret", "file", "filelink", "pipe"] {
                    _ = try errnoOf {
                        let entry = try client.walk(path)
                        let opened = try client.open(entry.node, flags: round % 2 == 0 ? 0 : 2)
                        let bytes = try client.read(entry.node, opened.handle, at: 0, 64)
                        #expect(bytes == Array("inside".utf8))
                        read += 1
                        try client.release(entry.node, opened.handle)
                    }
                }
                _ = try errnoOf {
                    let (entry, opened) = try client.create(try client.lookUp(1, "real").node, "made-\(round)")
                    try client.release(entry.node, opened.handle)
                }
                _ = try errnoOf { try client.unlink(try client.lookUp(1, "link").node, "secret-\(round)") }
            }
            #expect(read > 0)
        }
        #expect(Tree.names(outside) == ["secret"] && Tree.text(outside + "/secret") == "secret")
    }

    /// A file that was replaced on the host is not the one that the guest knows, even where it has its number again.
    @Test func numbersThatAreUsedAgain() throws {
        let rig = try ShareRig()
        let (client, path) = (rig.client, rig.tree.share + "/f")
        Tree.write("one", to: path)
        let first = try client.lookUp(1, "f")
        unlink(path)
        usleep(20_000)
        Tree.write("other", to: path)
        #expect(throws: FUSEFailure(ESTALE)) { try client.attributes(first.node) }
        #expect(throws: FUSEFailure(ESTALE)) { try client.open(first.node) }
        let second = try client.lookUp(1, "f")
        #expect(second.node != first.node && second.attributes.size == 5)
        // Moved on the host: known again once it is looked up.
        rename(path, path + "2")
        #expect(throws: FUSEFailure(ESTALE)) { try client.attributes(second.node) }
        #expect(try client.lookUp(1, "f2").node == second.node)
        #expect(try client.attributes(second.node).size == 5)
    }

    /// The directory is removed on the host: nothing is found any more, and nothing is made in what is in its place.
    @Test func theShareVanishes() throws {
        let rig = try ShareRig()
        let (client, share) = (rig.client, rig.tree.share)
        let (file, opened) = try client.create(1, "f")
        rename(share, rig.tree.root + "/old")
        mkdir(share, 0o755)
        Tree.write("new", to: share + "/f")
        #expect(try client.lookUp(1, "f").node == file.node, "it is the directory, wherever it is")
        Tree.remove(rig.tree.root + "/old")
        #expect(throws: FUSEFailure(ENOENT)) { try client.lookUp(1, "f") }
        #expect(throws: FUSEFailure(ENOENT)) { try client.create(1, "g") }
        try client.write(file.node, opened.handle, at: 0, [1])
        #expect(try client.attributes(file.node, handle: opened.handle).links == 0)
        #expect(try client.attributes(1).links == 0)
        #expect(Tree.text(share + "/f") == "new" && Tree.names(share) == ["f"])
    }

    @Test func aReadOnlyShareStaysAsItIs() throws {
        let tree = Tree()
        mkdir(tree.share + "/d", 0o755)
        Tree.write("text", to: tree.share + "/f")
        Tree.set(attribute: "user.test", [1], of: tree.share + "/f")
        let before = Tree.snapshot(tree.share)
        let rig = try ShareRig(tree, isReadOnly: true) { $0.sharesLocks = true }
        let client = rig.client
        let (file, directory) = (try client.lookUp(1, "f").node, try client.lookUp(1, "d").node)
        let opened = try client.open(file, flags: 0)
        let handle = opened.handle
        let changes: [(String, () throws -> Void)] = [
            ("mkdir", { _ = try client.makeDirectory(1, "x") }), ("mknod", { _ = try client.makeNode(1, "x", mode: 0o100644) }),
            ("symlink", { _ = try client.symbolicLink(1, "x", to: "y") }), ("link", { _ = try client.link(file, 1, "x") }),
            ("unlink", { try client.unlink(1, "f") }), ("rmdir", { try client.removeDirectory(1, "d") }),
            ("rename", { try client.rename(1, "f", 1, "g") }),
            ("rename2", { try client.rename2(1, "f", directory, "g", flags: 1) }),
            ("create", { _ = try client.create(1, "x") }), ("create, to read", { _ = try client.create(1, "f", flags: 0) }),
            ("tmpfile", { _ = try client.temporaryFile(1) }),
            ("open", { _ = try client.open(file, flags: 1) }), ("open", { _ = try client.open(file, flags: 2) }),
            ("open", { _ = try client.open(file, flags: 0o1000) }), ("write", { try client.write(file, handle, at: 0, [1]) }),
            ("mode", { try client.change(file) { $0.mode = 0o600 } }), ("owner", { try client.change(file) { $0.user = 1 } }),
            ("size", { try client.change(file) { $0.size = 1 } }),
            ("size", { try client.change(file) { $0.size = 1; $0.handle = handle } }),
            ("time", { try client.change(file) { $0.modified = (1, 1) } }), ("nothing", { try client.change(file) { _ in } }),
            ("allocate", { try client.allocate(file, handle, mode: 0, at: 0, 100) }),
            ("copy", { _ = try client.copy(file, handle, at: 0, to: file, handle, at: 10, 2) }),
            ("xattr", { try client.set(attribute: "user.test", [2], of: file) }),
            ("xattr", { try client.remove(attribute: "user.test", of: file) }),
        ]
        for (what, change) in changes { #expect(try errnoOf(change) == EROFS, "\(what)") }
        #expect(Tree.snapshot(tree.share) == before)
        // All else is as ever.
        #expect(try client.read(file, handle, at: 1, 10) == Array("ext".utf8))
        #expect(try client.attribute("user.test", of: file) == [1])
        #expect(try client.allEntries(1).count == 4)
        try client.sync(file, handle)
        try client.syncFileSystem()
        try client.setLock(file, handle, owner: 1, type: 0)
    }
}

/// A flag between a test and its thread.
final class StopFlag: Sendable {
    private let raised = Atomic<Bool>(false)
    private let ended = Atomic<Bool>(false)
    var isSet: Bool {
        get { raised.load(ordering: .acquiring) }
        set { raised.store(newValue, ordering: .releasing) }
    }
    var hasEnded: Bool {
        get { ended.load(ordering: .acquiring) }
        set { ended.store(newValue, ordering: .releasing) }
    }
}
