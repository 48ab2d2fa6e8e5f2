import FoundationEssentials

/// What a cached image is made of: the file `manifest.json` beside its files.
struct ImageManifest: Codable, Hashable {
    /// The form of this file and of those beside it, the prepared kernel, the root and the modules included.
    static let currentFormat = 6

    struct Package: Codable, Hashable {
        var name: String
        var version: String
        var address: String
        var sha256: String
    }

    struct File: Codable, Hashable {
        var name: String
        var size: UInt64
        var sha256: String
    }

    var format = Self.currentFormat
    var name: String
    /// The kernel's release, such as `6.1.0-40-cloud-amd64`.
    var release: String
    /// The version of the kernel's package.
    var version: String
    var packages: [Package]
    var files: [File]

    var encoded: [UInt8] {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            return Array(try encoder.encode(self)) + [UInt8(ascii: "\n")]
        }
    }

    init(
        name: String, release: String, version: String, packages: [Package], files: [File]
    ) {
        self.name = name
        self.release = release
        self.version = version
        self.packages = packages
        self.files = files
    }

    /// nil for anything but a manifest of the current format.
    init?(_ bytes: [UInt8]) {
        guard let manifest = try? JSONDecoder().decode(Self.self, from: Data(bytes)),
            manifest.format == Self.currentFormat
        else { return nil }
        self = manifest
    }
}
