/// A package as the host's package sources offer it.
struct DebianPackage: Hashable {
    var name: String
    var version: String
    /// Where it comes from.
    var address: String
    /// Bytes of the archive.
    var size: UInt64
    /// Of the archive, as the signed list names it; 64 hexadecimal digits.
    var sha256: String
    /// The archive's name in the directory it is downloaded to.
    var fileName: String
}

/// The host's apt, with its sources and keys but a state of our own.
///
/// The system's package lists may be empty, old, or root's alone; with lists, cache and lock in a directory of ours any user
/// can fetch. Lists are verified against the host's keyrings and archives against the lists' hashes, by apt.
/// Source: [APT.CONF "DIRECTORIES"], [APT.CONF "THE ACQUIRE GROUP"], [APT-GET "download"].
struct DebianPackages {
    /// A directory of ours.
    let directory: String
    /// What stands before each program's name: nothing, so that PATH decides, or a directory with its slash.
    let tools: String
    /// Whether what runs is to end.
    let isCancelled: () -> Bool

    private var configuration: String { directory + "/apt.conf" }

    /// Hooks of the host's configuration work on the host's own cache: none of them is for us.
    static let configurationText = """
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        #clear DPkg::Pre-Invoke;
        #clear DPkg::Post-Invoke;
        #clear APT::NeverAutoRemove;
        APT::Architecture "amd64";
        #clear APT::Architectures;
        APT::Architectures { "amd64"; };
        APT::Sandbox::User "root";
        APT::Get::AllowUnauthenticated "false";
        Acquire::AllowInsecureRepositories "false";
        Acquire::Languages "none";
        Acquire::Retries "2";
        Acquire::http::Timeout "30";
        Acquire::https::Timeout "30";
        Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
        Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
        Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";

        """

    /// Makes the private state. The directory stays the caller's to remove.
    init(directory: String, tools: String = "", isCancelled: @escaping () -> Bool = { false }) throws(HostFileError) {
        self.directory = directory
        self.tools = tools
        self.isCancelled = isCancelled
        for name in ["lists/partial", "archives/partial", "packages"] {
            try HostFile.makeDirectory("\(directory)/\(name)")
        }
        // Nothing is installed as far as this apt knows: what the host has does not change what is picked.
        try HostFile.create(directory + "/status", with: [])
        try HostFile.create(configuration, with: Array(Self.configurationText.utf8))
    }

    /// Where `download` puts archives.
    var packages: String { directory + "/packages" }

    /// The command line of one of apt's programs on the private state.
    func words(_ program: String, _ arguments: [String]) -> [String] {
        // Paths go by option, where any character is safe; the file has the lists, which only a file can clear.
        [
            tools + program, "-c=\(configuration)",
            "-oDir::State=\(directory)", "-oDir::State::lists=\(directory)/lists",
            "-oDir::State::status=\(directory)/status",
            "-oDir::Cache=\(directory)", "-oDir::Cache::archives=\(directory)/archives",
        ] + arguments
    }

    /// Gets the package lists. A source that cannot be reached is not an error here: the others may do.
    /// - Returns: what apt said of sources that failed.
    func update(progress: @escaping (Double) -> Void) throws(ImageError) -> String? {
        let result = try run(
            words("apt-get", ["-qq", "-oAPT::Status-Fd=3", "update"]), in: packages, progress: progress)
        return result.errors.isEmpty ? nil : Self.reason(in: result.errorText)
    }

    /// Where the lists come from: a line in this form for each of packages. Source: [APT-GET "indextargets"].
    func indexTargets(format: String) throws(ImageError) -> String {
        let result = try run(
            words("apt-get", ["indextargets", "--format", format, "Created-By: Packages"]), in: packages)
        return result.status == 0 ? result.text : ""
    }

    /// The first package of `name`'s dependencies that starts with `prefix`: a meta package's actual one.
    func dependency(of name: String, prefix: String) throws(ImageError) -> String? {
        let result = try run(words("apt-cache", ["show", "--no-all-versions", name]), in: packages)
        guard result.status == 0 else { return nil }
        return Self.dependency(inControl: result.text, prefix: prefix)
    }

    static func dependency(inControl text: String, prefix: String) -> String? {
        for line in text.split(separator: "\n") where line.hasPrefix("Depends:") {
            for alternative in line.dropFirst("Depends:".count).split(whereSeparator: { $0 == "," || $0 == "|" }) {
                let name = alternative.split(whereSeparator: { $0 == " " || $0 == "(" || $0 == ":" }).first ?? ""
                if name.hasPrefix(prefix) { return String(name) }
            }
        }
        return nil
    }

    /// What the lists offer under these names, in their order; nil in the place of one they do not have.
    func resolve(_ names: [String]) throws(ImageError) -> [DebianPackage?] {
        var offers: [DebianPackage?] = []
        for name in names {
            let result = try run(words("apt-get", ["-qq", "--print-uris", "download", name]), in: packages)
            offers.append(result.status == 0 ? Self.offer(inAddresses: result.text, name: name) : nil)
        }
        return offers
    }

    /// Reads a line of `--print-uris`: `'http://…/x_1%3a2_amd64.deb' x_1%3a2_amd64.deb 928188 SHA256:3d3f…`.
    static func offer(inAddresses text: String, name: String) -> DebianPackage? {
        for line in text.split(separator: "\n") where line.hasPrefix("'") {
            let fields = line.split(separator: " ")
            guard fields.count >= 4, fields[0].count > 2, fields[0].hasSuffix("'"),
                let size = UInt64(fields[2]), fields[3].hasPrefix("SHA256:")
            else { continue }
            let file = String(fields[1])
            let sha256 = String(fields[3].dropFirst("SHA256:".count))
            let parts = file.split(separator: "_", omittingEmptySubsequences: false)
            guard parts.count == 3, parts[0] == name, !file.contains("/"),
                sha256.count == 64, sha256.allSatisfy(\.isHexDigit)
            else { continue }
            return DebianPackage(
                name: name, version: withoutPercentEncoding(parts[1]),
                address: String(fields[0].dropFirst().dropLast()), size: size, sha256: sha256, fileName: file)
        }
        return nil
    }

    /// Archive names carry an epoch's colon as `%3a`.
    private static func withoutPercentEncoding(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2, let code = UInt8(String(rest.prefix(2)) ?? "", radix: 16) {
                bytes.append(code)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Downloads archives, each verified by apt and then once more against the hash that was announced.
    func download(_ offers: [DebianPackage], progress: @escaping (Double) -> Void) throws(ImageError) {
        let names = offers.map { "\($0.name)=\($0.version)" }
        let what = offers.map(\.name).joined(separator: " and ")
        let result = try run(
            words("apt-get", ["-qq", "-oAPT::Status-Fd=3", "download"] + names), in: packages, progress: progress)
        guard result.status == 0 else {
            throw .packagesUnavailable(what: what, reason: Self.reason(in: result.errorText))
        }
        for offer in offers {
            let found = try Self.sha256(packages + "/" + offer.fileName)
            guard found == offer.sha256 else {
                throw .damaged("the package \(offer.name) has SHA-256 \(found), not \(offer.sha256)")
            }
        }
    }

    /// Unpacks a downloaded archive into a new directory.
    func unpack(_ offer: DebianPackage, to target: String) throws(ImageError) {
        let result = try run([tools + "dpkg-deb", "-x", packages + "/" + offer.fileName, target], in: packages)
        guard result.status == 0 else {
            throw .damaged("the package \(offer.name) cannot be unpacked, \(Self.reason(in: result.errorText))")
        }
    }

    /// A file's SHA-256 by the host's own program, which uses the processor's instructions for it.
    static func sha256(_ path: String) throws(ImageError) -> String {
        let result: HostCommand.Result
        do { result = try HostCommand(["sha256sum", "--", path]).run() } catch { throw imageError(error) }
        // A name with a backslash or a line feed makes the tool escape it, and say so with a backslash in front.
        let digest = result.text.drop { $0 == "\\" }.prefix(64)
        guard result.status == 0, digest.count == 64, digest.allSatisfy(\.isHexDigit) else {
            throw .cache("the SHA-256 of '\(path)' cannot be taken, \(reason(in: result.errorText))")
        }
        return String(digest)
    }

    private func run(
        _ words: [String], in directory: String, progress: ((Double) -> Void)? = nil
    ) throws(ImageError) -> HostCommand.Result {
        var command = HostCommand(words)
        command.workingDirectory = directory
        command.isCancelled = isCancelled
        if let progress {
            var parser = AptProgress()
            command.onStatus = { bytes in
                parser.feed(bytes)
                progress(parser.fraction)
            }
        }
        let result: HostCommand.Result
        do { result = try command.run() } catch { throw Self.imageError(error) }
        if result.interrupted || isCancelled() { throw .interrupted }
        return result
    }

    private static func imageError(_ failure: HostCommand.Failure) -> ImageError {
        switch failure {
        case .notFound(let program): .hostLacks(program: program)
        case .host: .cache(failure.description)
        }
    }

    /// The first thing apt or dpkg complained about, on one line, without its "E: " or "W: ".
    static func reason(in errors: String) -> String {
        let lines = errors.split(separator: "\n").map { line in
            line.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        }
        let first = lines.first { $0.hasPrefix("E: ") } ?? lines.first { $0.hasPrefix("W: ") } ?? lines.first
        guard let first else { return "no reason was given" }
        let text = first.hasPrefix("E: ") || first.hasPrefix("W: ") ? String(first.dropFirst(3)) : first
        return text.count > 300 ? text.prefix(300) + "…" : text
    }
}
