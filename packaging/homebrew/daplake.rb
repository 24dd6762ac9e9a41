# A formula for a tap. `packaging/build.py manifests` fills in the placeholders.
class Daplake < Formula
  desc "Sync Canvas data into Delta Lake tables, Parquet folders and SQL databases"
  homepage "{{repository}}"
  version "{{version}}"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "{{repository}}/releases/download/v{{version}}/daplake-{{version}}-aarch64-apple-darwin.tar.gz"
      sha256 "{{sha256:aarch64-apple-darwin.tar.gz}}"
    end
    on_intel do
      url "{{repository}}/releases/download/v{{version}}/daplake-{{version}}-x86_64-apple-darwin.tar.gz"
      sha256 "{{sha256:x86_64-apple-darwin.tar.gz}}"
    end
  end
  on_linux do
    on_arm do
      url "{{repository}}/releases/download/v{{version}}/daplake-{{version}}-aarch64-unknown-linux-gnu.tar.gz"
      sha256 "{{sha256:aarch64-unknown-linux-gnu.tar.gz}}"
    end
    on_intel do
      url "{{repository}}/releases/download/v{{version}}/daplake-{{version}}-x86_64-unknown-linux-gnu.tar.gz"
      sha256 "{{sha256:x86_64-unknown-linux-gnu.tar.gz}}"
    end
  end

  def install
    bin.install "daplake"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/daplake.bash" => "daplake"
    zsh_completion.install "completions/_daplake"
    fish_completion.install "completions/daplake.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/daplake --version")
  end
end
