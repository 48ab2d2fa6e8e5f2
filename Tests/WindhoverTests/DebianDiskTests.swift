import Glibc
import Testing

@testable import Windhover

@Suite struct BootstrapProgressTests {
    static let log = """
        I: running apt-get update...
        Get:1 http://h x
        I: downloading packages with apt...
        0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
        Get:1 http://h a
        Get:2 http://h b
        I: extracting archives...
        I: installing essential packages...
        Unpacking a (1) ...
        Setting up a (1) ...
        Setting up b (1) ...
        I: installing remaining packages inside the chroot...
        0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
        Get:1 http://h c
        Unpacking c (1) ...
        Setting up c (1) ...
        I: cleaning package lists and apt cache...
        I: done

        """

    @Test func goesOnAndNeverBack() {
        var progress = BootstrapProgress()
        var last = (step: FetchProgress.Step.lists, fraction: 0.0)
        var steps: [FetchProgress.Step] = [.lists]
        for line in Self.log.split(separator: "\n") {
            progress.feed(Array((line + "\n").utf8))
            #expect(progress.fraction >= last.fraction, "\(line)")
            if progress.step != last.step { steps.append(progress.step) }
            last = (progress.step, progress.fraction)
        }
        #expect(steps == [.lists, .download, .unpack, .install])
        #expect(progress.fraction == 1)
        #expect(progress.packages == 3)
        #expect(progress.complaint == nil)
    }

    @Test func linesCutAnywhere() {
        let bytes = Array(Self.log.utf8)
        for cut in stride(from: 0, through: bytes.count, by: 3) {
            var progress = BootstrapProgress()
            progress.feed(Array(bytes[..<cut]))
            progress.feed(Array(bytes[cut...]))
            #expect(progress.packages == 3 && progress.fraction == 1)
        }
    }

    @Test func theFirstComplaintIsKept() {
        var progress = BootstrapProgress()
        progress.feed(Array("E: Unable to locate package frob\nE: apt-get failed\n".utf8))
        #expect(progress.complaint == "E: Unable to locate package frob")
    }

    @Test func nonsenseIsPassedOver() {
        var progress = BootstrapProgress()
        for _ in 0..<100 { progress.feed([UInt8](repeating: 0x49, count: 10_000)) }
        for text in ["\n", "I: \n", "0 upgraded, x newly installed\n", "0 upgraded, 99999999999999999999 newly installed\n", "Get:\n", "\r\r"] {
            progress.feed(Array(text.utf8))
        }
        progress.feed(Array("I: installing essential packages...\n0 upgraded, 9223372036854775807 newly installed\nSetting up x\n".utf8))
        progress.feed(Array("0 upgraded, -5 newly installed\nSetting up x\n".utf8))
        #expect((0...1).contains(progress.fraction))
    }
}

@Suite struct DebianSourcesTests {
    @Test func theReleaseAndItsUpdates() throws {
        let text = """
            Debian|http://d/debian/|bookworm|bookworm|main
            Debian|http://d/debian/|bookworm|bookworm|contrib
            Debian|http://d/debian/|bookworm-updates|bookworm-updates|main
            Debian|http://s/debian-security/|bookworm-security|bookworm-security|main
            Debian Backports|http://d/debian/|bookworm-backports|bookworm-backports|main
            Debian|http://d/debian/|sid|sid|main
            Docker|https://docker/|bookworm|bookworm|stable
            Debian|http://d/debian/|bookworm|bookworm|main

            """
        let sources = try #require(DebianSources(indexTargets: text, keyring: "/k.gpg"))
        #expect(sources.release == "bookworm")
        #expect(
            sources.lines == [
                "deb [signed-by=/k.gpg] http://d/debian/ bookworm main contrib",
                "deb [signed-by=/k.gpg] http://d/debian/ bookworm-updates main",
                "deb [signed-by=/k.gpg] http://s/debian-security/ bookworm-security main",
            ])
        #expect(!sources.usesTLS)
        #expect(try #require(DebianSources(indexTargets: "Debian|https://d/|trixie|trixie|main", keyring: nil)).lines == ["deb https://d/ trixie main"])
    }

    @Test(arguments: ["", "\n", "Ubuntu|http://u/|noble|noble|main", "Debian|http://d/|x|x", "Debian||||", "Debian|http://d/ evil|x|x|main"])
    func whereNothingIsDebians(text: String) {
        #expect(DebianSources(indexTargets: text, keyring: nil) == nil)
    }
}

@Suite struct DiskSizeTests {
    @Test func sizes() throws {
        #expect(try DiskSize("2G").bytes == 2 << 30)
        #expect(try DiskSize("4MiB").bytes == 4 << 20)
        #expect(try DiskSize("65536k").bytes == 64 << 20)
    }

    @Test(arguments: ["", "2", "G", "-1G", "1.5G", "2GB", "0x1G", "2 G", "٤G"]) func sizesThatAreNone(text: String) {
        let error = failure { () throws(ConfigurationError) in try DiskSize(text) }
        #expect(error?.exitStatus == .usage)
    }

    @Test(arguments: ["0G", "3M", "4097K", "16T", "99999999999999999999T", "18446744073709551615K"])
    func sizesNoDiskHas(text: String) {
        let error = failure { () throws(ConfigurationError) in try DiskSize(text) }
        #expect(error?.exitStatus == .badConfiguration)
    }

    @Test func packageNames() {
        for name in ["curl", "g++", "libc6", "python3.11", "0ad"] { #expect(DiskRecipe.isPackageName(name)) }
        for name in ["", "a", "-o", "Curl", "a b", "a/b", "curl-", "a=1", "?essential", "~i", "a,b", "a\n", "../x", "*", "ä1"] {
            #expect(!DiskRecipe.isPackageName(name), "\(name)")
        }
    }
}

/// With a stand-in for mmdebstrap, so that every failure can be had; the rest is real.
@Suite(.timeLimit(.minutes(1))) struct DebianDiskTests {
    let directory = TemporaryDirectory()
    let manager = FakePackageManager()

    /// - Parameter body: what mmdebstrap does; `$tree` is where the system goes.
    func store(_ body: String?) throws -> ImageStore {
        guard HostProgram.find("mke2fs") != nil, (try? Namespace()) != nil else {
            try Test.cancel("this host has no mke2fs, or gives this user no namespace")
        }
        if let body {
            manager.directory.file(
                "mmdebstrap",
                """
                #!/bin/sh
                for word; do case $word in */tree) tree=$word ;; esac; done
                echo "$*" > \(manager.directory.path)/words
                \(body)

                """, mode: 0o755)
        }
        var store = ImageStore(cacheDirectory: directory.path + "/cache dir's")
        store.tools = manager.tools
        return store
    }

    static let system = """
        mkdir -p "$tree/etc" "$tree/sbin"; echo 1 > "$tree/sbin/init"; echo host > "$tree/etc/hostname"
        ln -s /lib/x "$tree/etc/resolv.conf"
        echo 'I: installing essential packages...' >&2; echo 'Setting up a (1) ...' >&2
        """
    let size = { try DiskSize("16M") }

    func read(_ path: String, _ command: String) throws -> String { try HostCommand(["debugfs", "-R", command, path]).run().text }

    @Test func madeKeptAndReplaced() throws {
        let store = try store(Self.system)
        var progress: [FetchProgress] = []
        let disk = try store.makeDisk(.debian(packages: ["curl"]), size: size(), progress: { progress.append($0) })
        #expect(disk.contents == "Debian testing, 1 packages")
        #expect(disk.size == 16 << 20 && disk.allocated < 8 << 20)
        #expect(store.disk("debian") == disk && store.disks() == [disk])
        #expect(progress.map(\.fraction) == progress.map(\.fraction).sorted())
        #expect(progress.last?.fraction == 1)
        #expect(Set(progress.map(\.step)).isSuperset(of: [.lists, .install, .fileSystem, .finish]))
        let words = String(decoding: try HostFile.contents(of: manager.directory.path + "/words", limit: 1 << 16), as: UTF8.self)
        #expect(words.contains("e2fsprogs,curl ") && words.contains("deb ") && words.contains(" testing "))

        #expect(try HostCommand(["e2fsck", "-fn", disk.path]).run().status == 0)
        #expect(try read(disk.path, "cat /etc/hostname") == "debian\n")
        #expect(try read(disk.path, "cat /etc/fstab").contains("LABEL=root / ext4"))
        #expect(try read(disk.path, "stat /etc/resolv.conf").contains("stub-resolv.conf"))
        for path in ["/", "/etc", "/etc/hostname", "/sbin/init"] {
            #expect(try read(disk.path, "stat \(path)").contains(/User: +0 +Group: +0/), "\(path)")
        }
        #expect(try read(disk.path, "stat /etc/hostname").contains("0644"))
        #expect(HostFile.names(in: store.cacheDirectory + "/tmp").isEmpty)

        // It is there: it is not made anew unless that is wanted.
        #expect(failure { () throws(ImageError) in try store.makeDisk(.debian(packages: []), size: try! size()) } == .exists(path: disk.path))
        #expect(try store.makeDisk(.debian(packages: []), size: DiskSize("24M"), replace: true).size == 24 << 20)
        _ = try store.prune()
        #expect(store.disk("debian") != nil)
        #expect(try store.pruneDisks() > 0)
        #expect(store.disks().isEmpty)
    }

    @Test func madeWhereItIsWanted() throws {
        let store = try store(Self.system)
        let path = directory.path + "/a disk's.img"
        let disk = try store.makeDisk(.debian(packages: []), size: size(), output: path)
        #expect(disk.path == path && disk.size == 16 << 20)
        #expect(store.disks().isEmpty)
        #expect(HostFile.names(in: directory.path) == ["a disk's.img", "cache dir's"])
        #expect(failure { () throws(ImageError) in try store.makeDisk(.debian(packages: []), size: try! size(), output: path) } == .exists(path: path))
        #expect(try store.makeDisk(.debian(packages: []), size: DiskSize("20M"), output: path, replace: true).size == 20 << 20)
    }

    func expectFailure(_ store: ImageStore, output: String? = nil, _ status: Windhover.ExitStatus, naming words: [String], location: SourceLocation = #_sourceLocation) {
        let before = HostFile.names(in: directory.path)
        let error = failure { () throws(ImageError) in try store.makeDisk(.debian(packages: []), size: try! size(), output: output) }
        #expect(error?.exitStatus == status, "\(error?.description ?? "made")", sourceLocation: location)
        for word in words { #expect(error?.description.contains(word) == true, "\(error?.description ?? "made")", sourceLocation: location) }
        #expect(error?.description.contains("\n") == false, sourceLocation: location)
        #expect(store.disks().isEmpty, sourceLocation: location)
        #expect(HostFile.names(in: store.cacheDirectory + "/tmp").isEmpty, sourceLocation: location)
        #expect(HostFile.names(in: directory.path).filter { $0 != "cache dir's" } == before.filter { $0 != "cache dir's" }, sourceLocation: location)
    }

    @Test func whatGoesWrong() throws {
        expectFailure(
            try store("mkdir -p \"$tree/x\"; chown 33 \"$tree/x\"; echo 'E: Unable to locate package frob' >&2; echo 'E: mmdebstrap failed' >&2; exit 1"),
            .unavailable, naming: ["Unable to locate package frob"])
        expectFailure(
            try store(Self.system + "; head -c 40000000 /dev/urandom > \"$tree/large\""), .badConfiguration, naming: ["16 MiB", "--size"])
        for (path, status, reason) in [
            ("/nonexistent/x.img", Windhover.ExitStatus.noSuchFile, "No such file"), (directory.path, .badConfiguration, "there already"),
        ] {
            expectFailure(try store(Self.system), output: path, status, naming: ["'\(path)'", reason])
        }
        expectFailure(try store(Self.system), output: directory.path + "/new.img.d/x", .noSuchFile, naming: ["--output"])
    }

    @Test func aHostWithoutMmdebstrap() throws {
        expectFailure(try store(nil), .unavailable, naming: ["mmdebstrap", "apt-get install mmdebstrap"])
    }

    @Test func oneThatIsCalledOff() throws {
        let store = try store(Self.system + "; sleep 30")
        let start = ContinuousClock.now
        var isCancelled = false
        let path = directory.path + "/x.img"
        let error = failure { () throws(ImageError) in
            try store.makeDisk(.debian(packages: []), size: try! size(), output: path, isCancelled: { isCancelled },
                progress: { if $0.step == .install { isCancelled = true } })
        }
        #expect(error == .interrupted)
        #expect(ContinuousClock.now - start < .seconds(20))
        #expect(HostFile.names(in: store.cacheDirectory + "/tmp").isEmpty)
        #expect(HostFile.names(in: directory.path) == ["cache dir's"])
    }
}

@Suite(.timeLimit(.minutes(1))) struct SmallDiskTests {
    let directory = TemporaryDirectory()

    func disk() throws -> SmallDisk {
        if HostProgram.find("mke2fs") == nil { try Test.cancel("this host has no mke2fs") }
        return try SmallDisk(busybox: directory.file("busybox", "#!/bin/sh\nprintf 'bin/sh\\nsbin/init\\nusr/bin/awk\\n'\n", mode: 0o755))
    }

    @Test func holdsASystem() throws {
        let path = directory.path + "/disk.img"
        try disk().make(
            at: path, size: DiskSize("8M"), script: "echo hello\n", files: ["data/deep/file": [1, 2, 3]], work: directory.path + "/work")
        #expect(HostFile.names(in: directory.path) == ["busybox", "disk.img"])
        let facts = try #require(HostFile.facts(path))
        #expect(facts.size == 8 << 20 && facts.allocated < 4 << 20)
        #expect(try HostCommand(["e2fsck", "-fn", path]).run().status == 0)
        func read(_ command: String) throws -> String { try HostCommand(["debugfs", "-R", command, path]).run().text }
        #expect(try read("cat /etc/script") == "echo hello\n")
        #expect(try read("cat /sbin/init") == SmallDisk.initScript)
        #expect(try read("stat /bin/sh").contains("/bin/busybox"))
        #expect(try read("stat /sbin/init").contains("0755"))
        #expect(try read("stat /root").contains("0700"))
        #expect(try read("stat /data/deep/file").contains(/User: +0 +Group: +0 .*Size: 3/))
        let info = try HostCommand(["dumpe2fs", "-h", path]).run().text
        #expect(info.contains(/volume name: +root\n/) && info.contains("has_journal"))
    }

    @Test func whatCannotBeMade() throws {
        let disk = try disk()
        let work = directory.path + "/work"
        func make(_ path: String, _ size: String, files: [String: [UInt8]] = [:], isCancelled: @escaping () -> Bool = { false }) -> ImageError? {
            failure { () throws(ImageError) in
                try disk.make(at: path, size: try! DiskSize(size), files: files, work: work, isCancelled: isCancelled)
            }
        }
        let large = [UInt8](repeating: 7, count: 9 << 20)
        guard case .doesNotFit(let content, 8_388_608) = make(directory.path + "/a", "8M", files: ["large": large]), content >= 9 << 20 else {
            Issue.record("what is larger than its disk was put there")
            return
        }
        #expect(make(directory.path + "/nowhere/a", "8M")?.description.contains("nowhere") == true)
        #expect(make(directory.path + "/busybox", "8M") == .exists(path: directory.path + "/busybox"))
        #expect(make(directory.path + "/a", "8M", isCancelled: { true }) == .interrupted)
        #expect(HostFile.names(in: directory.path) == ["busybox"])
    }

    @Test func theBusyboxOfAnImage() throws {
        let archive = SmallRoot.archive(busybox: [1, 2, 3], applets: ["bin/sh", "sbin/ip"])
        let path = directory.path + "/initrd"
        try HostFile.create(path, with: archive)
        let disk = try SmallDisk(initrd: path)
        #expect(disk.busybox == [1, 2, 3])
        #expect(disk.applets == ["bin/sh", "sbin/ip"])
        for bytes in [[], Array(archive[..<300]), [UInt8](repeating: 0x30, count: 600), CPIOArchive().finished()] {
            let other = directory.path + "/other"
            try HostFile.create(other, with: bytes)
            guard case .damaged = failure({ () throws(ImageError) in try SmallDisk(initrd: other) }) else {
                Issue.record("a busybox was found in \(bytes.count) bytes of something else")
                return
            }
            try HostFile.remove(other)
        }
    }
}

@Suite struct CPIOEntriesTests {
    @Test func whatIsWrittenIsRead() throws {
        var archive = CPIOArchive()
        archive.addDirectory("d")
        archive.addFile("d/f", [1, 2, 3])
        archive.addLink("d/l", to: "f")
        archive.addCharacterDevice("d/c", major: 1, minor: 2, permissions: 0o600)
        let entries = try #require(CPIOArchive.entries(of: archive.finished()))
        #expect(entries.map(\.path) == ["d", "d/f", "d/l", "d/c"])
        #expect(entries.map(\.kind) == [.directory, .file, .link, .other])
        #expect(entries[1].data == [1, 2, 3] && entries[2].data == Array("f".utf8))
    }

    @Test func whateverTheBytes() {
        var archive = CPIOArchive()
        archive.addFile("f", [1, 2, 3])
        let bytes = archive.finished()
        for count in 0..<200 { #expect(CPIOArchive.entries(of: Array(bytes[..<count])) == nil) }
        for index in 0..<120 {
            for value in [0, 0x2B, 0x2D, 0x30, 0x46, 0xFF] as [UInt8] {
                var changed = bytes
                changed[index] = value
                _ = CPIOArchive.entries(of: changed)
            }
        }
    }
}
