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
    }

    /// An image that is there already keeps its root: another root needs another format, or it reaches nobody.
    @Test func anotherRootIsAnotherFormat() {
        let archive = SmallRoot.archive(busybox: busybox, applets: ["bin/sh"])
        // FNV-1a.
        let digest = archive.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
        #expect(
            [ImageManifest.currentFormat: String(digest, radix: 16)] == [3: "bd4a9a6486e8398f"],
            "raise ImageManifest.currentFormat, and note the new root's digest here")
    }

    @Test func theInitScriptParses() throws {
        let directory = TemporaryDirectory()
        for (name, text) in [("init", SmallRoot.initScript), ("profile", SmallRoot.profile)] {
            let result = try HostCommand(["sh", "-n", directory.file(name, text)]).run()
            #expect(result.status == 0, "\(result.errorText)")
        }
    }
}
