import CHost
import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// What the host has mounted below a share, the whole of its tree among the shares.
@Suite(.behindEachTransport) struct ShareMountTests {
    private static let isRoot = geteuid() == 0
    private static let isLocal: Bool = {
        let file = open("/tmp", O_RDONLY)
        return file >= 0 && FileSystemKind(of: OpenDescriptor(file)) == .local
    }()

    /// The host's own: place and type of each mount.
    private static var mounts: [(place: String, type: String)] {
        guard let file = fopen("/proc/self/mountinfo", "r") else { return [] }
        defer { fclose(file) }
        var mounts: [(String, String)] = []
        var line = [CChar](repeating: 0, count: 16_384)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
            guard let dash = words.firstIndex(of: "-"), dash + 1 < words.count else { continue }
            mounts.append((words[4], words[dash + 1]))
        }
        return mounts
    }

    /// Nobody gets at the memory, environment and settings of the host by way of what the host has them mounted as.
    @Test func theWholeTreeOfTheHost() throws {
        let events = ManualEvents()
        let device = try FileSystemDevice(directory: "/", tag: "root", isReadOnly: true, events: events, clock: events.clock)
        let client = try FUSEClient(device, events: events)
        try client.mount()
        for name in ["proc", "sys"] {
            let node = try client.lookUp(1, name)
            #expect(node.attributes.mode & 0o170000 == 0o040000 && node.attributes.links == 2 && node.attributes.size == 0)
            #expect(try client.attributes(node.node).links == 2)
            #expect(try client.allEntries(node.node).isEmpty && client.allEntries(node.node, plus: true).isEmpty)
        }
        for path in [
            "proc/self/environ", "proc/self/mem", "proc/1/environ", "proc/\(getpid())/fd/0", "proc/self/root/etc/passwd", "proc/kcore",
            "proc/sysrq-trigger", "sys/kernel", "sys/class", "sys/fs/cgroup", "dev/pts/0",
        ] {
            #expect(throws: FUSEFailure(ENOENT), "\(path)") { try client.walk(path) }
        }
        // Where devices are in devtmpfs they are not there; elsewhere they are names.
        for name in ["null", "mem", "kvm", "vda"] where Tree.kind("/dev/" + name) != 0 {
            let result = try errnoOf { _ = try client.open(try client.walk("dev/" + name).node, flags: 0) }
            #expect(result == ENOENT || result == EACCES, "\(name)")
        }
        // All else is as it is.
        #expect(try client.walk("etc/passwd").attributes.size == Tree.status("/etc/passwd").map { UInt64($0.st_size) })
    }

    @Test func everythingThatTheHostHasMounted() throws {
        let events = ManualEvents()
        let device = try FileSystemDevice(directory: "/", tag: "root", isReadOnly: true, events: events, clock: events.clock)
        let client = try FUSEClient(device, events: events)
        try client.mount()
        let kernels: Set = [
            "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "hugetlbfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf",
            "pstore", "configfs", "efivarfs", "binfmt_misc", "autofs", "selinuxfs", "rpc_pipefs", "nsfs", "fusectl",
        ]
        var seen = 0
        for (place, type) in Self.mounts where kernels.contains(type) {
            // Below another one it is not even there.
            guard let found = try? client.walk(place) else { continue }
            seen += 1
            #expect(found.attributes.mode & 0o170000 == 0o040000, "\(type) at \(place)")
            #expect(try client.allEntries(found.node).isEmpty, "\(type) at \(place)")
            for name in ["self", "1", "kernel", "cpu", "null", "0", "tasks", "cgroup.procs"] {
                #expect(throws: FUSEFailure(ENOENT)) { try client.lookUp(found.node, name) }
            }
            #expect(throws: FUSEFailure(EROFS)) { try client.create(found.node, "x") }
        }
        #expect(seen >= 2, "there is a host without /proc and /sys")
    }

    /// Each of the kernel's file systems that can be mounted here, in a share that may be written to.
    @Test(
        .enabled(if: isRoot, "only root can mount"),
        arguments: [
            "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "hugetlbfs", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "pstore",
            "configfs", "binfmt_misc", "fusectl", "rpc_pipefs",
        ])
    func aFileSystemOfTheKernels(type: String) throws {
        let tree = Tree()
        let place = tree.share + "/m"
        mkdir(place, 0o755)
        // Not all kernels have all of them.
        guard mount("none", place, type, 0, nil) == 0 else { return }
        defer { umount2(place, 2) }
        let rig = try ShareRig(tree)
        let client = rig.client
        let found = try client.lookUp(1, "m")
        #expect(found.attributes.mode & 0o170000 == 0o040000 && found.attributes.links == 2)
        for name in Tree.names(place).prefix(20) + ["x"] {
            #expect(throws: FUSEFailure(ENOENT)) { try client.lookUp(found.node, name) }
            #expect(throws: FUSEFailure(EACCES)) { try client.unlink(found.node, name) }
        }
        let opened = try client.openDirectory(found.node)
        #expect(try client.attributes(found.node, handle: opened.handle).links == 2)
        try client.release(found.node, opened.handle, isDirectory: true)
        #expect(try client.allEntries(found.node, plus: true).isEmpty)
        #expect(throws: FUSEFailure(EACCES)) { try client.makeDirectory(found.node, "x") }
        #expect(throws: FUSEFailure(EACCES)) { try client.change(found.node) { $0.mode = 0o777 } }
        #expect(throws: FUSEFailure(EOPNOTSUPP)) { try client.attribute("user.x", of: found.node) }
        // In a list of what is beside it, it is a name.
        #expect(try client.allEntries(1, plus: true).first { $0.name == "m" }?.entry?.node == 0)
    }

    /// Files of the kernel's that were bound to a place, as containers have them.
    @Test(.enabled(if: isRoot, "only root can mount")) func boundFiles() throws {
        let tree = Tree()
        let files = [
            ("/proc/self/environ", "environ"), ("/proc/self/ns/net", "namespace"),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "setting"),
        ]
        for (source, name) in files {
            let place = tree.share + "/" + name
            Tree.write("", to: place)
            guard mount(source, place, nil, UInt(MS_BIND), nil) == 0 else { continue }
            defer { umount2(place, 2) }
            let client = try ShareRig(tree).client
            #expect(throws: FUSEFailure(ENOENT), "\(name)") { try client.lookUp(1, name) }
            for flags in [0, 2, 0o1002] as [UInt32] {
                #expect(throws: FUSEFailure(EACCES), "\(name)") { try client.create(1, name, flags: flags) }
            }
        }
    }

    /// A name in a directory of automounts is not looked up: that alone would have something mounted.
    @Test(.enabled(if: isRoot, "only root can mount")) func automounts() throws {
        let tree = Tree()
        let place = tree.share + "/auto"
        mkdir(place, 0o755)
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let options = "fd=\(ends[1]),pgrp=\(getpgrp()),minproto=5,maxproto=5,indirect"
        // Not all kernels have it.
        guard mount("none", place, "autofs", 0, options) == 0 else { return }
        defer { umount2(place, 2) }
        let client = try ShareRig(tree).client
        let found = try client.lookUp(1, "auto")
        #expect(throws: FUSEFailure(ENOENT)) { try client.lookUp(found.node, "home") }
        #expect(try client.allEntries(found.node).isEmpty)
        var waiting = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
        #expect(poll(&waiting, 1, 0) == 0, "something was to be mounted")
    }

    /// A server that answers nothing at all has only those wait who ask it.
    @Test(.enabled(if: isRoot && access("/dev/fuse", R_OK | W_OK) == 0, "only root can mount, and /dev/fuse is needed"))
    func aServerThatIsGone() throws {
        let tree = Tree()
        let place = tree.share + "/dead"
        mkdir(place, 0o755)
        Tree.write("text", to: tree.share + "/f")
        let fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC)
        // Not everywhere may root do it.
        guard mount("dead", place, "fuse", 0, "fd=\(fuse),rootmode=40000,user_id=0,group_id=0") == 0 else {
            close(fuse)
            return
        }
        let rig = try ShareRig(tree)
        let client = rig.client
        let dead = 12
        for _ in 0..<dead { try client.post(1, node: 1, Array("dead\0".utf8), room: 128) }
        // As many as there are threads, three times over. What is beside goes on, on threads and without.
        let queue = client.driver.queues[1]
        for round in 0..<20 {
            let asked = [
                try client.post(1, node: 1, Array("f\0".utf8), room: 128),
                try client.post(9, node: 1, Bytes(UInt32(0o755), UInt32(0)).bytes + Array("d\(round)\0".utf8), room: 128),
                try client.post(27, node: 1, Bytes(UInt32(0), UInt32(0)).bytes, room: 16),
            ]
            var got: Set<UInt64> = []
            for _ in 0..<2000 where got.count < asked.count {
                rig.events.run()
                for done in try queue.completions() {
                    var answer = Cursor(done.bytes)
                    _ = answer.next(UInt32.self)
                    #expect(answer.next(Int32.self) == 0)
                    got.insert(answer.next(UInt64.self))
                }
                rig.events.clock.advance(by: 10_000_000)
                usleep(500)
            }
            #expect(got == Set(asked), "round \(round)")
        }
        #expect(try client.wait(for: 0).isEmpty)
        // The list of what it is in does not ask it either.
        #expect(try client.allEntries(1, plus: true).contains { $0.name == "dead" })
        umount2(place, 1 | 2)
        close(fuse)
        #expect(try client.wait(for: dead).allSatisfy { $0.error != 0 })
        #expect(!rig.needsReset)
    }

    /// What the host answers soon is done where it is asked for; what may take time is not.
    @Test(.enabled(if: isLocal, "/tmp is on no disk of the host's own")) func whatIsDoneAtOnce() throws {
        let tree = Tree()
        Tree.write(String(repeating: "x", count: 300_000), to: tree.share + "/f")
        let rig = try ShareRig(tree)
        let client = rig.client
        let file = try client.lookUp(1, "f").node
        let opened = try client.open(file, flags: 0)
        #expect(try client.read(file, opened.handle, at: 0, 300_000).count == 300_000)
        let queue = client.driver.queues[1]
        func done(_ opcode: UInt32, _ node: UInt64, _ body: Bytes, room: Int) throws -> Bool {
            try client.post(opcode, node: node, body.bytes, room: room)
            // One turn of the event loop: what threads have done is seen by the next.
            rig.events.turn()
            let isDone = try queue.completions().count == 1
            if !isDone { #expect(try client.wait(for: 1).map(\.error) == [0]) }
            return isDone
        }
        func transfer(_ count: UInt32) -> Bytes { Bytes(opened.handle, UInt64(0), count, UInt32(0), UInt64(0), UInt64(0)) }
        var name = Bytes()
        name.add(name: "f")
        #expect(try done(1, 1, name, room: 128))
        #expect(try done(3, file, Bytes(UInt64(0), UInt64(0)), room: 104))
        #expect(try done(15, file, transfer(4096), room: 4096))
        #expect(try !done(15, file, transfer(300_000), room: 300_000), "a long one")
        #expect(try done(14, file, Bytes(UInt64(0)), room: 16))
        #expect(try !done(14, file, Bytes(UInt64(2)), room: 16), "to write")
        var made = Bytes(UInt32(0o755), UInt32(0))
        made.add(name: "d")
        #expect(try !done(9, 1, made, room: 128), "a change")
        let mode = Tree.status(tree.share + "/d")?.st_mode
        #expect(mode == S_IFDIR | 0o755, "no mask of the host's")
    }

    /// One notification of very many requests: some are done at once, the rest in turns of the event loop.
    @Test func aTurnEnds() throws {
        let tree = Tree()
        Tree.write("x", to: tree.share + "/f")
        let rig = try ShareRig(tree) { $0.queueSize = 1024 }
        let queue = rig.client.driver.queues[1]
        for _ in 0..<300 {
            try queue.add(readable: [FUSEClient.message(1, rig.client.takeUnique(), node: 1, Array("f\0".utf8))], writable: [144])
        }
        rig.client.transport.notify(queue: 1)
        let first = try queue.completions().count
        #expect(first <= 64)
        var turns = 0
        var rest = 300 - first
        while rest > 0, turns < 10_000 {
            rig.events.turn()
            rest -= try queue.completions().count
            turns += 1
            if !rig.events.hasWork { usleep(100) }
        }
        #expect(rest == 0 && turns >= 3)
    }

    @Test func mountListsAreRead() {
        func device(_ text: String) -> UInt64? { FileSystemKind.deviceNodes(in: Array(text.utf8)) }
        let root = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        #expect(device("") == nil && device(root) == nil && device("- devtmpfs") == nil)
        #expect(device(root + "24 27 0:6 / /dev rw,relatime shared:2 master:1 - devtmpfs udev rw,size=4k\n") == 6)
        #expect(device("24 27 259:3 / /dev rw - devtmpfs udev rw") == 259 << 32 | 3)
        // A directory of that name, and numbers that are none.
        #expect(device("24 27 0:6 / /devtmpfs rw - tmpfs devtmpfs rw\n24 27 x:6 / /dev rw - devtmpfs udev rw\n") == nil)
    }
}
