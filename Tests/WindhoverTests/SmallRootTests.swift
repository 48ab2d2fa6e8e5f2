import Testing

@testable import Windhover

/// Reads a newc archive back, by the format's description and not by the writer's code.
struct CPIOReader {
    struct Entry {
        var name: String
        var mode: UInt32
        var links: UInt32
        var device: (UInt32, UInt32)
        var inode: UInt32
        var data: [UInt8]
    }

    var entries: [Entry] = []

    init(_ bytes: [UInt8]) throws {
        var offset = 0
        while true {
            try #require(offset % 4 == 0 && offset + 110 <= bytes.count)
            try #require(String(decoding: bytes[offset..<offset + 6], as: UTF8.self) == "070701")
            var fields: [UInt32] = []
            for index in 0..<13 {
                let start = offset + 6 + index * 8
                fields.append(try #require(UInt32(String(decoding: bytes[start..<start + 8], as: UTF8.self), radix: 16)))
            }
            let nameEnd = offset + 110 + Int(fields[11])
            try #require(nameEnd <= bytes.count && bytes[nameEnd - 1] == 0)
            let name = String(decoding: bytes[offset + 110..<nameEnd - 1], as: UTF8.self)
            let dataStart = (nameEnd + 3) & ~3
            let dataEnd = dataStart + Int(fields[6])
            try #require(dataEnd <= bytes.count)
            offset = (dataEnd + 3) & ~3
            if name == "TRAILER!!!" { break }
            entries.append(
                Entry(
                    name: name, mode: fields[1], links: fields[4], device: (fields[9], fields[10]), inode: fields[0],
                    data: Array(bytes[dataStart..<dataEnd])))
        }
        #expect(bytes[offset...].allSatisfy { $0 == 0 })
    }

    subscript(name: String) -> Entry? { entries.first { $0.name == name } }
}

@Suite struct CPIOTests {
    @Test func oneEntryByteForByte() {
        var archive = CPIOArchive()
        archive.addFile("ab", [0x31, 0x32, 0x33], permissions: 0o600)
        let bytes = archive.finished()
        let header = "070701" + "00000001" + "00008180" + "00000000" + "00000000" + "00000001" + "00000000"
            + "00000003" + "00000000" + "00000000" + "00000000" + "00000000" + "00000003" + "00000000"
        // 110 bytes of header and 3 of name are padded to 116, 3 of data to 4.
        #expect(Array(bytes[..<120]) == Array(header.utf8) + [0x61, 0x62, 0, 0, 0, 0] + [0x31, 0x32, 0x33, 0])
        #expect(bytes.count == 512)
    }

    @Test func whatIsWrittenReadsBack() throws {
        var archive = CPIOArchive()
        archive.addDirectory("d", permissions: 0o1777)
        for length in 0...9 { archive.addFile("d/" + String(repeating: "n", count: length + 1), Array(0..<UInt8(length))) }
        archive.addLink("l", to: "d/n")
        archive.addCharacterDevice("c", major: 5, minor: 1, permissions: 0o600)
        let read = try CPIOReader(archive.finished())
        #expect(read.entries.count == 13)
        #expect(read["d"]?.mode == 0o041777)
        for length in 0...9 {
            #expect(read["d/" + String(repeating: "n", count: length + 1)]?.data == Array(0..<UInt8(length)))
        }
        #expect(read["l"]?.mode == 0o120777)
        #expect(read["l"]?.data == Array("d/n".utf8))
        #expect(read["c"]?.mode == 0o020600)
        #expect(try #require(read["c"]).device == (5, 1))
        #expect(Set(read.entries.map(\.inode)).count == 13)
    }

    @Test func anEmptyArchiveIsATrailer() throws {
        #expect(try CPIOReader(CPIOArchive().finished()).entries.isEmpty)
    }
}

@Suite struct SmallRootTests {
    let busybox: [UInt8] = Array("program".utf8)
    func read(_ applets: [String]) throws -> CPIOReader {
        try CPIOReader(SmallRoot.archive(busybox: busybox, applets: applets))
    }

    @Test func holdsWhatBootingNeeds() throws {
        let root = try read(["bin/sh", "sbin/init", "usr/bin/["])
        #expect(root["init"]?.mode == 0o100755)
        #expect(root["bin/busybox"]?.data == busybox)
        #expect(root["bin/busybox"]?.mode == 0o100755)
        #expect(root["dev/console"]?.mode == 0o020600)
        #expect(root["bin/sh"]?.data == Array("/bin/busybox".utf8))
        #expect(root["usr/bin/["] != nil)
        // The kernel would take it for another init.
        #expect(root["sbin/init"] == nil)
        for directory in ["proc", "sys", "dev", "run", "tmp", "root"] {
            #expect(try #require(root[directory]).mode & 0o170000 == 0o040000)
        }
    }

    @Test func parentsComeFirstAndNamesOnce() throws {
        let root = try read(["bin/sh", "sbin/ip", "usr/bin/x", "usr/sbin/y"])
        var seen: Set<String> = []
        for entry in root.entries {
            if let slash = entry.name.lastIndex(of: "/") {
                #expect(seen.contains(String(entry.name[..<slash])), "\(entry.name)")
            }
            #expect(seen.insert(entry.name).inserted, "\(entry.name)")
        }
    }

    @Test func appletPathsThatLeadElsewhereAreLeftOut() throws {
        let bare = try read([]).entries.count
        #expect(try read(["../etc/passwd", "bin/../x", "/bin/sh", "bin/", "sh", "", "etc/passwd", "bin/busybox"]).entries.count == bare)
    }

    @Test func theInitScriptIsOne() {
        #expect(SmallRoot.initScript.hasPrefix("#!/bin/sh\n"))
        #expect(SmallRoot.initScript.hasSuffix("poweroff -f\n"))
        #expect(SmallDisk.initScript.hasPrefix("#!/bin/sh\n"))
        #expect(SmallDisk.initScript.hasSuffix("poweroff -f\n"))
    }

    /// Init reads its parts by their names, and every one that it is given.
    @Test func initReadsItsParts() throws {
        let root = try read([])
        let whole = SmallRoot.initScript + SmallRoot.parts.map(\.1).joined()
        for (name, text) in SmallRoot.parts {
            #expect(root["lib/windhover/\(name)"]?.data == Array(text.utf8))
            #expect(whole.contains("/lib/windhover/\(name)"), "\(name) is read by nobody")
        }
        for word in whole.matches(of: /\/lib\/windhover\/([a-z]+)/) {
            #expect(SmallRoot.parts.contains { $0.0 == word.1 }, "\(word.1) is not there")
        }
    }

    /// Without devices and without a disk to start, the root has nothing more to do than it ever had.
    @Test func partsAreReadOnlyWhenNeeded() {
        for line in SmallRoot.initScript.split(separator: "\n") where line.contains(". /lib/windhover/") {
            #expect(line.hasPrefix("[ "), "\(line)")
        }
    }

    /// An image that is there already keeps its root: another root needs another format, or it reaches nobody.
    @Test func anotherRootIsAnotherFormat() {
        let archive = SmallRoot.archive(busybox: busybox, applets: ["bin/sh"])
        // FNV-1a.
        let digest = archive.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
        #expect(
            [ImageManifest.currentFormat: String(digest, radix: 16)] == [6: "a888287547f52f5"],
            "raise ImageManifest.currentFormat, and note the new root's digest here")
    }

    @Test func theInitScriptParses() throws {
        let directory = TemporaryDirectory()
        let scripts = [
            ("init", SmallRoot.initScript), ("profile", SmallRoot.profile), ("disk", SmallDisk.initScript),
            ("hook", DebianDisk.hook),
        ]
        // busybox's shell is the one that will read them.
        let shells = [["sh"]] + (HostProgram.find("busybox").map { [[$0, "sh"]] } ?? [])
        for (name, text) in scripts + SmallRoot.parts {
            for shell in shells {
                let result = try HostCommand(shell + ["-n", directory.file(name, text)]).run()
                #expect(result.status == 0, "\(shell) \(name): \(result.errorText)")
            }
        }
    }

    /// The root's script with stand-ins for what it calls, in a directory in place of /.
    private struct RootScript {
        let directory = TemporaryDirectory()

        /// - Parameters:
        ///   - disks: which stand-ins for block devices there are.
        ///   - systems: paths of programs on the disk, or `path -> target` for links.
        /// - Returns: what it says, `init starts` where it would have come to an end there.
        func run(root: String, flags: String = "", program: String = "/sbin/init", disks: [String], systems: [String: [String]]) throws -> String {
            let top = directory.path
            for path in ["bin", "dev", "mnt", "sys/bus/virtio/devices", "sys/class/block"] { try HostFile.makeDirectory("\(top)/\(path)") }
            for disk in disks {
                directory.file("dev/\(disk)", "")
                directory.file("sys/class/block/\(disk)", "")
            }
            for (disk, entries) in systems {
                try HostFile.makeDirectory("\(top)/disk-\(disk)")
                for entry in entries {
                    let words = entry.split(separator: " ").map(String.init)
                    let path = "disk-\(disk)" + words[0]
                    if let slash = path.lastIndex(of: "/") { try HostFile.makeDirectory("\(top)/\(path[..<slash])") }
                    if words.count == 3 { try HostFile.makeLink("\(top)/\(path)", to: words[2]) } else { directory.file(path, "", mode: 0o755) }
                }
            }
            // A mount makes /mnt a link to what is on the disk.
            directory.file(
                "bin/mount", """
                #!/bin/sh
                echo "mount $*" >> \(top)/calls
                for word; do case $word in */dev/*) disk=${word##*/} ;; esac; done
                case $1 in --move) exit 0 ;; esac
                [ -d "\(top)/disk-$disk" ] || exit 1
                rmdir \(top)/mnt; ln -s "\(top)/disk-$disk" \(top)/mnt

                """, mode: 0o755)
            directory.file("bin/umount", "#!/bin/sh\nrm \(top)/mnt; mkdir \(top)/mnt\n", mode: 0o755)
            directory.file("bin/findfs", "#!/bin/sh\n[ \"$1\" = LABEL=root ] && echo \(top)/dev/vdb\n", mode: 0o755)
            directory.file("bin/switch_root", "#!/bin/sh\necho \"starts $2\"\n", mode: 0o755)
            directory.file("bin/usleep", "#!/bin/sh\n:\n", mode: 0o755)
            let script = SmallRoot.rootScript
                .replacing("/mnt", with: top + "/mnt").replacing("/dev/vd", with: top + "/dev/vd")
                .replacing("/sys/", with: top + "/sys/").replacing("[ -b ", with: "[ -e ").replacing("test -b ", with: "test -e ")
                .replacing("PATH=/usr/local/sbin", with: "PATH=\(top)/bin:/usr/local/sbin").replacing("/lib/modules", with: "/nonexistent")
            directory.file("script", script)
            let words = ["sh", "-c", "root=$1 rootflags=$2 init=$3; PATH=\(top)/bin:$PATH; . \(top)/script", "sh", root, flags, program]
            return try HostCommand(words).run().text.replacing(top, with: "")
        }

        var calls: String { ((try? HostFile.contents(of: directory.path + "/calls", limit: 1 << 16)).map { String(decoding: $0, as: UTF8.self) } ?? "").replacing(directory.path, with: "") }
    }

    @Test func aDiskWithASystemIsStarted() throws {
        #expect(try RootScript().run(root: "auto", disks: ["vda"], systems: ["vda": ["/sbin/init"]]) == "starts /sbin/init\n")
        // The first partition that has one, before the whole disk.
        let partitions = RootScript()
        #expect(
            try partitions.run(root: "auto", disks: ["vda", "vda1", "vda2"], systems: ["vda1": ["/boot/grub"], "vda2": ["/sbin/init"]])
                == "starts /sbin/init\n")
        #expect(partitions.calls.contains("/dev/vda2") && !partitions.calls.contains("/dev/vda /mnt"))
        // Links as Debian has them: relative for the directory, absolute for the program.
        #expect(
            try RootScript().run(
                root: "auto", disks: ["vda"],
                systems: ["vda": ["/usr/lib/systemd/systemd", "/lib -> usr/lib", "/sbin/init -> /lib/systemd/systemd"]])
                == "starts /sbin/init\n")
        let named = RootScript()
        #expect(
            try named.run(root: "LABEL=root", flags: "ro", program: "/bin/other", disks: ["vda", "vdb"], systems: ["vdb": ["/bin/other"]])
                == "starts /bin/other\n")
        #expect(named.calls.contains("mount -t ext4 -o ro /dev/vdb /mnt"))
    }

    @Test func aDiskWithoutASystemIsSaid() throws {
        let end = "init: no system on a disk was started: this is the small root\n"
        #expect(try RootScript().run(root: "auto", disks: [], systems: [:]) == "init: there is no disk to start from\n" + end)
        #expect(
            try RootScript().run(root: "auto", disks: ["vda"], systems: [:])
                == "init: /dev/vda holds no file system that this kernel mounts\n" + end)
        #expect(
            try RootScript().run(root: "auto", disks: ["vda"], systems: ["vda": ["/home/data"]])
                == "init: /dev/vda holds no /sbin/init that could be started\n" + end)
        // A circle of links, and one to nowhere.
        for links in [["/sbin/init -> init2", "/sbin/init2 -> init"], ["/sbin/init -> /nowhere"]] {
            #expect(
                try RootScript().run(root: "auto", disks: ["vda"], systems: ["vda": links])
                    == "init: /dev/vda holds no /sbin/init that could be started\n" + end)
        }
        #expect(
            try RootScript().run(root: "UUID=none", disks: ["vda", "vda1"], systems: [:])
                == "init: windhover.root=UUID=none is not there; the block devices are: vda vda1\n" + end)
        #expect(
            try RootScript().run(root: "/dev/vdz", disks: [], systems: [:])
                == "init: windhover.root=/dev/vdz is not there; the block devices are: none\n" + end)
    }
}
