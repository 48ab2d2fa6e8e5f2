/// The operations of a file system, as a guest's kernel asks for them.
extension FUSEClient {
    public struct Attributes: Hashable {
        public var inode: UInt64, size: UInt64, blocks: UInt64
        public var accessed: UInt64, modified: UInt64, changed: UInt64
        public var accessedNanoseconds: UInt32, modifiedNanoseconds: UInt32, changedNanoseconds: UInt32
        public var mode: UInt32, links: UInt32, user: UInt32, group: UInt32, rawDevice: UInt32, blockSize: UInt32, flags: UInt32

        init(_ cursor: inout Cursor) {
            inode = cursor.next(UInt64.self)
            size = cursor.next(UInt64.self)
            blocks = cursor.next(UInt64.self)
            accessed = cursor.next(UInt64.self)
            modified = cursor.next(UInt64.self)
            changed = cursor.next(UInt64.self)
            accessedNanoseconds = cursor.next(UInt32.self)
            modifiedNanoseconds = cursor.next(UInt32.self)
            changedNanoseconds = cursor.next(UInt32.self)
            mode = cursor.next(UInt32.self)
            links = cursor.next(UInt32.self)
            user = cursor.next(UInt32.self)
            group = cursor.next(UInt32.self)
            rawDevice = cursor.next(UInt32.self)
            blockSize = cursor.next(UInt32.self)
            flags = cursor.next(UInt32.self)
        }
    }

    public struct Entry: Hashable {
        public var node: UInt64, generation: UInt64, entryValid: UInt64, attributesValid: UInt64
        public var attributes: Attributes

        init(_ cursor: inout Cursor) {
            node = cursor.next(UInt64.self)
            generation = cursor.next(UInt64.self)
            entryValid = cursor.next(UInt64.self)
            attributesValid = cursor.next(UInt64.self)
            _ = cursor.next(UInt64.self)
            attributes = Attributes(&cursor)
        }
    }

    public struct Opened: Hashable {
        public var handle: UInt64
        public var flags: UInt32
        init(_ cursor: inout Cursor) {
            handle = cursor.next(UInt64.self)
            flags = cursor.next(UInt32.self)
        }
    }

    public struct DirectoryEntry: Hashable {
        public var name: String
        public var inode: UInt64, offset: UInt64
        public var type: UInt32
        /// Of READDIRPLUS.
        public var entry: Entry?
    }

    /// What SETATTR sets.
    public struct Change {
        public var mode: UInt32?, user: UInt32?, group: UInt32?
        public var size: UInt64?, handle: UInt64?
        public var accessed: (seconds: UInt64, nanoseconds: UInt32)?, modified: (seconds: UInt64, nanoseconds: UInt32)?
        /// Further bits of `valid`.
        public var bits: UInt32 = 0
        public init() {}
    }

    private func entry(_ bytes: [UInt8]) -> Entry {
        var cursor = Cursor(bytes)
        return Entry(&cursor)
    }

    private func named(_ name: String, _ before: [UInt8] = []) -> [UInt8] { before + Array(name.utf8) + [0] }

    // MARK: Names

    public func lookUp(_ parent: UInt64, _ name: String) throws -> Entry { entry(try call(1, node: parent, named(name))) }

    /// Looks up one component after the other.
    public func walk(_ path: String) throws -> Entry {
        var found: Entry?
        for part in path.split(separator: "/") { found = try lookUp(found?.node ?? 1, String(part)) }
        guard let found else { throw Broken(description: "an empty path") }
        return found
    }

    public func makeDirectory(_ parent: UInt64, _ name: String, mode: UInt32 = 0o755) throws -> Entry {
        entry(try call(9, node: parent, named(name, Bytes(mode, UInt32(0)).bytes)))
    }

    public func makeNode(_ parent: UInt64, _ name: String, mode: UInt32, rawDevice: UInt32 = 0) throws -> Entry {
        entry(try call(8, node: parent, named(name, Bytes(mode, rawDevice, UInt32(0), UInt32(0)).bytes)))
    }

    public func symbolicLink(_ parent: UInt64, _ name: String, to target: String) throws -> Entry {
        entry(try call(6, node: parent, named(name) + named(target)))
    }

    public func readLink(_ node: UInt64) throws -> String { String(decoding: try call(5, node: node), as: UTF8.self) }

    public func link(_ node: UInt64, _ parent: UInt64, _ name: String) throws -> Entry {
        entry(try call(13, node: parent, named(name, Bytes(node).bytes)))
    }

    public func unlink(_ parent: UInt64, _ name: String) throws { try call(10, node: parent, named(name)) }
    public func removeDirectory(_ parent: UInt64, _ name: String) throws { try call(11, node: parent, named(name)) }

    public func rename(_ parent: UInt64, _ name: String, _ target: UInt64, _ new: String) throws {
        try call(12, node: parent, named(name, Bytes(target).bytes) + named(new))
    }

    public func rename2(_ parent: UInt64, _ name: String, _ target: UInt64, _ new: String, flags: UInt32) throws {
        try call(45, node: parent, named(name, Bytes(target, flags, UInt32(0)).bytes) + named(new))
    }

    // MARK: Attributes

    public func attributes(_ node: UInt64, handle: UInt64? = nil) throws -> Attributes {
        var cursor = Cursor(try call(3, node: node, Bytes(UInt32(handle == nil ? 0 : 1), UInt32(0), handle ?? UInt64(0)).bytes))
        cursor.place = 16
        return Attributes(&cursor)
    }

    @discardableResult
    public func change(_ node: UInt64, _ edit: (inout Change) -> Void) throws -> Attributes {
        var change = Change()
        edit(&change)
        var valid = change.bits
        if change.mode != nil { valid |= 1 }
        if change.user != nil { valid |= 2 }
        if change.group != nil { valid |= 4 }
        if change.size != nil { valid |= 8 }
        if change.accessed != nil { valid |= 16 }
        if change.modified != nil { valid |= 32 }
        if change.handle != nil { valid |= 64 }
        var body = Bytes(valid, UInt32(0), change.handle ?? UInt64(0), change.size ?? UInt64(0), UInt64(0))
        body.add(change.accessed?.seconds ?? UInt64(0), change.modified?.seconds ?? UInt64(0), UInt64(0))
        body.add(change.accessed?.nanoseconds ?? UInt32(0), change.modified?.nanoseconds ?? UInt32(0), UInt32(0))
        body.add(change.mode ?? UInt32(0), UInt32(0), change.user ?? UInt32(0), change.group ?? UInt32(0), UInt32(0))
        var cursor = Cursor(try call(4, node: node, body.bytes))
        cursor.place = 16
        return Attributes(&cursor)
    }

    /// Blocks, free, available, files, free files; block size, longest name, fragment size.
    public func space(_ node: UInt64 = 1) throws -> (words: [UInt64], halves: [UInt32]) {
        var cursor = Cursor(try call(17, node: node))
        return ((0..<5).map { _ in cursor.next(UInt64.self) }, (0..<3).map { _ in cursor.next(UInt32.self) })
    }

    public func set(attribute name: String, _ value: [UInt8], of node: UInt64, flags: UInt32 = 0) throws {
        try call(21, node: node, named(name, Bytes(UInt32(value.count), flags).bytes) + value)
    }

    public func attribute(_ name: String, of node: UInt64, size: UInt32 = 65_536) throws -> [UInt8] {
        try call(22, node: node, named(name, Bytes(size, UInt32(0)).bytes), room: max(8, Int(size)))
    }

    public func attributeNames(of node: UInt64, size: UInt32 = 65_536) throws -> [String] {
        try call(23, node: node, Bytes(size, UInt32(0)).bytes, room: max(8, Int(size))).split(separator: 0)
            .map { String(decoding: $0, as: UTF8.self) }
    }

    public func remove(attribute name: String, of node: UInt64) throws { try call(24, node: node, named(name)) }

    // MARK: Files

    public func open(_ node: UInt64, flags: UInt32 = 2, openFlags: UInt32 = 0) throws -> Opened {
        var cursor = Cursor(try call(14, node: node, Bytes(flags, openFlags).bytes))
        return Opened(&cursor)
    }

    public func create(
        _ parent: UInt64, _ name: String, flags: UInt32 = 2, mode: UInt32 = 0o644
    ) throws -> (entry: Entry, opened: Opened) {
        var cursor = Cursor(
            try call(35, node: parent, named(name, Bytes(flags, mode | 0o100000, UInt32(0), UInt32(0)).bytes)))
        return (Entry(&cursor), Opened(&cursor))
    }

    public func temporaryFile(
        _ parent: UInt64, flags: UInt32 = 2, mode: UInt32 = 0o600
    ) throws -> (entry: Entry, opened: Opened) {
        var cursor = Cursor(
            try call(51, node: parent, named("#1", Bytes(flags, mode | 0o100000, UInt32(0), UInt32(0)).bytes)))
        return (Entry(&cursor), Opened(&cursor))
    }

    public func read(_ node: UInt64, _ handle: UInt64, at offset: UInt64, _ count: Int) throws -> [UInt8] {
        try call(
            15, node: node, Bytes(handle, offset, UInt32(count), UInt32(0), UInt64(0), UInt32(0), UInt32(0)).bytes, room: count)
    }

    @discardableResult
    public func write(
        _ node: UInt64, _ handle: UInt64, at offset: UInt64, _ data: [UInt8], flags: UInt32 = 0
    ) throws -> UInt32 {
        var body = Bytes(handle, offset, UInt32(data.count), flags, UInt64(0), UInt32(0), UInt32(0))
        body.add(raw: data)
        var cursor = Cursor(try call(16, node: node, body.bytes))
        return cursor.next(UInt32.self)
    }

    public func release(_ node: UInt64, _ handle: UInt64, isDirectory: Bool = false) throws {
        try call(isDirectory ? 29 : 18, node: node, Bytes(handle, UInt64(0), UInt64(0)).bytes)
    }

    public func flush(_ node: UInt64, _ handle: UInt64, owner: UInt64 = 0) throws {
        try call(25, node: node, Bytes(handle, UInt64(0), owner).bytes)
    }

    public func sync(_ node: UInt64, _ handle: UInt64, dataOnly: Bool = false, isDirectory: Bool = false) throws {
        try call(isDirectory ? 30 : 20, node: node, Bytes(handle, UInt32(dataOnly ? 1 : 0), UInt32(0)).bytes)
    }

    public func syncFileSystem() throws { try call(50, node: 1, Bytes(UInt64(0)).bytes) }

    public func allocate(_ node: UInt64, _ handle: UInt64, mode: UInt32, at offset: UInt64, _ count: UInt64) throws {
        try call(43, node: node, Bytes(handle, offset, count, mode, UInt32(0)).bytes)
    }

    public func seek(_ node: UInt64, _ handle: UInt64, to offset: UInt64, whence: UInt32) throws -> UInt64 {
        var cursor = Cursor(try call(46, node: node, Bytes(handle, offset, whence, UInt32(0)).bytes))
        return cursor.next(UInt64.self)
    }

    public func copy(
        _ node: UInt64, _ handle: UInt64, at offset: UInt64, to target: UInt64, _ targetHandle: UInt64,
        at targetOffset: UInt64, _ count: UInt64
    ) throws -> UInt32 {
        var cursor = Cursor(
            try call(47, node: node, Bytes(handle, offset, target, targetHandle, targetOffset, count, UInt64(0)).bytes))
        return cursor.next(UInt32.self)
    }

    // MARK: Directories

    public func openDirectory(_ node: UInt64) throws -> Opened {
        var cursor = Cursor(try call(27, node: node, Bytes(UInt32(0), UInt32(0)).bytes))
        return Opened(&cursor)
    }

    /// One piece of a directory.
    public func entries(
        _ node: UInt64, _ handle: UInt64, from offset: UInt64, plus: Bool = false, size: Int = 4096
    ) throws -> [DirectoryEntry] {
        let bytes = try call(
            plus ? 44 : 28, node: node,
            Bytes(handle, offset, UInt32(size), UInt32(0), UInt64(0), UInt32(0), UInt32(0)).bytes, room: size)
        var cursor = Cursor(bytes)
        var all: [DirectoryEntry] = []
        while cursor.place < bytes.count {
            let start = cursor.place
            let entry = plus ? Entry(&cursor) : nil
            let (inode, offset) = (cursor.next(UInt64.self), cursor.next(UInt64.self))
            let (length, type) = (Int(cursor.next(UInt32.self)), cursor.next(UInt32.self))
            guard length > 0, cursor.place + length <= bytes.count else { throw Broken(description: "an entry past the end") }
            let name = String(decoding: bytes[cursor.place..<(cursor.place + length)], as: UTF8.self)
            all.append(DirectoryEntry(name: name, inode: inode, offset: offset, type: type, entry: entry))
            cursor.place = start + ((cursor.place + length - start + 7) & ~7)
        }
        return all
    }

    /// All of a directory, piece by piece.
    public func allEntries(_ node: UInt64, plus: Bool = false, size: Int = 4096) throws -> [DirectoryEntry] {
        let opened = try openDirectory(node)
        defer { try? release(node, opened.handle, isDirectory: true) }
        var all: [DirectoryEntry] = []
        while true {
            let piece = try entries(node, opened.handle, from: all.last?.offset ?? 0, plus: plus, size: size)
            if piece.isEmpty { return all }
            all += piece
            guard all.count < 1 << 20 else { throw Broken(description: "a directory without an end") }
        }
    }

    // MARK: Locks

    /// - Parameter type: 0 to read, 1 to write, 2 to unlock.
    public func setLock(
        _ node: UInt64, _ handle: UInt64, owner: UInt64, type: UInt32, _ range: ClosedRange<UInt64> = 0...UInt64(Int64.max)
    ) throws {
        try call(32, node: node, Self.lock(handle, owner, type, range))
    }

    public static func lock(_ handle: UInt64, _ owner: UInt64, _ type: UInt32, _ range: ClosedRange<UInt64>) -> [UInt8] {
        Bytes(handle, owner, range.lowerBound, range.upperBound, type, UInt32(7), UInt32(0), UInt32(0)).bytes
    }

    /// The lock that is in the way; its type is 2 where none is.
    public func testLock(
        _ node: UInt64, _ handle: UInt64, owner: UInt64, type: UInt32, _ range: ClosedRange<UInt64> = 0...UInt64(Int64.max)
    ) throws -> (start: UInt64, end: UInt64, type: UInt32) {
        var cursor = Cursor(try call(31, node: node, Self.lock(handle, owner, type, range)))
        return (cursor.next(UInt64.self), cursor.next(UInt64.self), cursor.next(UInt32.self))
    }
}
