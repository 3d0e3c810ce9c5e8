#!/bin/bash
# A real kube-apiserver for the tests.  usage: kube-apiserver.sh find|build
#   find   prints its path, or exits with 1: $KUBEBUILDER_ASSETS (the convention of envtest), PATH, or what `build` made earlier
#   build  the same; where there is none, on Debian 12 as root, makes one from Debian's own source package with Debian's own Go (about 2 minutes, 1 GiB
#          while it lasts) and keeps it (105 MB) in ${XDG_CACHE_HOME:-~/.cache}/elect-run-tests, which outlives a clean checkout
set -euo pipefail

VERSION=1.20.2
KEPT=${XDG_CACHE_HOME:-$HOME/.cache}/elect-run-tests/kube-apiserver-$VERSION

find_it() {
  local path
  for path in "${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS/kube-apiserver}" "$(command -v kube-apiserver || true)" "$KEPT"; do
    if [ -n "$path" ] && [ -x "$path" ]; then
      echo "$path"
      return 0
    fi
  done
  return 1
}

say() { echo "kube-apiserver: $* ($SECONDS s)" >&2; }

build() {
  local work=$1
  local log=$work/log
  mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/gopath/src/k8s.io
  cd "$work"
  export DEBIAN_FRONTEND=noninteractive
  say "none found, making one from Debian's source package"
  apt-get -o DPkg::Lock::Timeout=300 -qq update >"$log" 2>&1
  apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends golang-1.19-go dpkg-dev >>"$log" 2>&1
  # The machine's own Debian mirror; its own lists and cache, so that nothing of apt's configuration changes.
  local uri
  uri=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
    sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' | head -1) || true
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri bookworm main" >src.list
  local apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/src.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update >>"$log" 2>&1
  "${apt[@]}" source --download-only kubernetes >>"$log" 2>&1
  dpkg-source --no-check -x kubernetes_*.dsc src >>"$log" 2>&1
  say unpacked

  # The vendored reflect2 1.0.1 panics with Go >= 1.18 on every decoded map; Debian's own 1.0.2 does not.
  apt-get download -q -o APT::Sandbox::User=root golang-github-modern-go-reflect2-dev >>"$log" 2>&1
  dpkg -x golang-github-modern-go-reflect2-dev*.deb r2
  rm -f src/vendor/github.com/modern-go/reflect2/*.go
  cp r2/usr/share/gocode/src/github.com/modern-go/reflect2/*.go src/vendor/github.com/modern-go/reflect2/

  ln -sfn "$work/src" gopath/src/k8s.io/kubernetes
  export PATH=/usr/lib/go-1.19/bin:$PATH CGO_ENABLED=0 GO111MODULE=off GOPROXY=off GOPATH=$work/gopath GOCACHE=$work/gocache HOME=$work
  cd gopath/src/k8s.io/kubernetes
  # Debian's source lacks this generated file.
  if [ ! -f pkg/generated/openapi/zz_generated.openapi.go ]; then
    nice go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen >>"$log" 2>&1
    local dirs
    dirs=$(grep -rlE '^// \+k8s:openapi-gen=' --include='*.go' pkg cmd plugin staging/src/k8s.io |
      grep -vE '/_examples/|testdata|/vendor/|code-generator/|sample-' | xargs -n1 dirname | sort -u |
      sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^\(pkg\|cmd\|plugin\)/#k8s.io/kubernetes/\1/#' | paste -sd,)
    nice "$work/openapi-gen" -O zz_generated.openapi -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi \
      -h hack/boilerplate/boilerplate.generatego.txt --output-base "$work/gopath/src" -r /dev/null >>"$log" 2>&1
  fi
  say 'sources complete, compiling'
  local version=k8s.io/kubernetes/vendor/k8s.io/component-base/version
  nice go build -o "$work/kube-apiserver" -ldflags \
    "-s -w -X $version.gitVersion=v$VERSION -X $version.gitMajor=1 -X $version.gitMinor=20" ./cmd/kube-apiserver >>"$log" 2>&1
  mv "$work/kube-apiserver" "$KEPT" # the same file system: whole or not at all
  say "kept as $KEPT"
}

case ${1:-} in
find) find_it ;;
build)
  if find_it; then exit 0; fi
  mkdir -p "${KEPT%/*}"
  exec 9>"$KEPT.lock"
  flock -n 9 || { say 'another process is making one, waiting for it' && flock 9; }
  if find_it; then exit 0; fi
  if [ "$(id -u)" != 0 ] || ! grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
    echo 'kube-apiserver: not found, and it can only be made on Debian 12 as root; set KUBEBUILDER_ASSETS to a folder that has it' >&2
    exit 1
  fi
  WORK=$(mktemp -d "$KEPT.XXXXXX")
  trap 'failed=$?; [ $failed = 0 ] || { say "could not be made:"; tail -5 "$WORK/log" >&2; }; rm -rf "$WORK"; exit $failed' EXIT
  build "$WORK"
  find_it
  ;;
*)
  echo 'usage: kube-apiserver.sh find|build' >&2
  exit 64
  ;;
esac
