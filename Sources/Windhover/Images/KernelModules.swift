internal import Boot

/// Where a kernel's modules are.
public enum ModuleSource: Hashable, Sendable {
    /// Nowhere: the kernel is taken to have everything built in.
    case builtIn
    /// An archive as `ModuleArchive` makes it, of an image in the store.
    case archive(path: String)
    /// A directory `lib/modules/RELEASE`, as a kernel's build or package fills it.
    case directory(String)
}

/// A kernel's modules by their names: which there are, which are built in, and what they need.
///
/// What the files say may be anything: a list that is too long is an error, a line that makes no sense is passed over, and no
/// path leads out of the directory.
struct KernelModules {
    /// What messages call it.
    let place: String
    private let source: ModuleSource
    /// Paths in the directory.
    private var paths: [String: String] = [:]
    /// What `modules.dep` says that each needs; nil where there is no such list.
    private var dependencies: [String: [String]]?
    /// Entries of the archive.
    private var files: [String: [UInt8]] = [:]
    /// nil where nobody says which these are.
    private var builtIn: Set<String>?

    /// Of `modules.dep` and its like. The longest of a distribution's kernel is `modules.alias` with about 2 MiB.
    private static let listLimit = 32 << 20
    private static let archiveLimit = 256 << 20

    init(_ source: ModuleSource) throws(GuestKernelError) {
        self.source = source
        switch source {
        case .builtIn: place = ""
        case .archive(let path):
            place = path
            try readArchive(path)
        case .directory(let path):
            place = path
            try readDirectory(path)
        }
    }

    /// Whether it is known that a module is part of the kernel itself.
    func isBuiltIn(_ name: String) -> Bool { builtIn?.contains(name) ?? false }

    /// Whether a module that is not there is not built in either, for all that is known.
    var knowsBuiltIn: Bool { builtIn != nil }

    func holds(_ name: String) -> Bool { paths[name] != nil || files[name] != nil }

    /// A module; nil for one that is not there.
    /// - Throws: `badModule` for one that is there and of no use.
    func module(_ name: String, keepsSignature: Bool) throws(GuestKernelError) -> KernelModule? {
        let path: String
        let contents: [UInt8]
        switch source {
        case .builtIn: return nil
        case .archive:
            guard let found = files[name] else { return nil }
            path = "\(place): \(name).ko"
            contents = found
        case .directory(let directory):
            guard let relative = paths[name] else { return nil }
            path = "\(directory)/\(relative)"
            do throws(BootError) {
                contents = try ImageBytes(file: path).unpackedContents(limit: ModuleArchive.sizeLimit)
            } catch .noSuchFile {
                // A list that is older than what is there.
                return nil
            } catch {
                throw .badModule(path: path, problem: error.description)
            }
        }
        guard let module = KernelModule(contents, fileName: "\(name).ko", keepsSignature: keepsSignature) else {
            throw .badModule(path: path, problem: "it is no 64-bit kernel module")
        }
        return module
    }

    /// What must be loaded before a module.
    func dependencies(of module: KernelModule, named name: String) -> [String] { dependencies?[name] ?? module.dependencies }

    /// The module that answers to a name that is not a module's own, such as a checksum's `crc32c`. Of several that do not need
    /// a certain processor, if there is one.
    func module(answeringTo alias: String) -> String? {
        guard case .directory(let directory) = source, let text = try? Self.list("\(directory)/modules.alias") else { return nil }
        let start = Array("alias \(alias) ".utf8)
        let found = text.split(separator: UInt8(ascii: "\n")).filter { $0.starts(with: start) }
            .map { KernelModule.name(ofFile: String(decoding: $0.dropFirst(start.count), as: UTF8.self)) }
            .filter { paths[$0] != nil }
        return found.first { $0.hasSuffix("_generic") } ?? found.first
    }

    // MARK: Reading

    private mutating func readArchive(_ path: String) throws(GuestKernelError) {
        let bytes: [UInt8]
        do { bytes = try HostFile.contents(of: path, limit: Self.archiveLimit) } catch {
            throw .badModule(path: path, problem: error.description)
        }
        guard let entries = CPIOArchive.entries(of: bytes) else {
            throw .badModule(path: path, problem: "it is no cpio archive, or not a whole one")
        }
        for entry in entries where entry.kind == .file && Self.isModule(entry.path) {
            files[Self.name(ofPath: entry.path)] = entry.data
        }
    }

    private mutating func readDirectory(_ directory: String) throws(GuestKernelError) {
        if let text = try Self.list("\(directory)/modules.builtin") {
            builtIn = Set(text.split(separator: UInt8(ascii: "\n")).map { Self.name(ofPath: String(decoding: $0, as: UTF8.self)) })
        }
        guard let text = try Self.list("\(directory)/modules.dep") else {
            var found: [String: String] = [:]
            ModuleArchive.find(directory, into: &found)
            // Paths of the directory's own.
            paths = found.mapValues { String(decoding: $0.utf8.dropFirst(directory.utf8.count + 1), as: UTF8.self) }
            return
        }
        var dependencies: [String: [String]] = [:]
        for line in text.split(separator: UInt8(ascii: "\n")) {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { continue }
            let path = String(decoding: line[..<colon], as: UTF8.self)
            guard Self.isModule(path), Self.isInside(path) else { continue }
            let name = Self.name(ofPath: path)
            paths[name] = path
            let needed = line[line.index(after: colon)...].split(separator: UInt8(ascii: " "))
            // All that it needs, the last of it first to load.
            if !needed.isEmpty {
                dependencies[name] = needed.reversed().map { Self.name(ofPath: String(decoding: $0, as: UTF8.self)) }
            }
        }
        for name in paths.keys where dependencies[name] == nil { dependencies[name] = [] }
        self.dependencies = dependencies
    }

    /// A list's bytes; nil where there is none.
    private static func list(_ path: String) throws(GuestKernelError) -> [UInt8]? {
        do throws(HostFileError) { return try HostFile.contents(of: path, limit: listLimit) } catch {
            guard HostFile.facts(path) != nil else { return nil }
            throw .badModule(path: path, problem: error.description)
        }
    }

    private static func isModule(_ path: String) -> Bool {
        guard let file = path.split(separator: "/").last else { return false }
        return file.hasSuffix(".ko") || file.contains(".ko.")
    }

    private static func isInside(_ path: String) -> Bool {
        !path.hasPrefix("/") && !path.split(separator: "/").contains("..")
    }

    private static func name(ofPath path: String) -> String {
        KernelModule.name(ofFile: String(path.split(separator: "/").last ?? ""))
    }
}
