{{- define "llamacluster.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end -}}
{{- end -}}

{{- define "llamacluster.selectorLabels" -}}
app.kubernetes.io/name: llamacluster-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Ours win: they select pods, or say whose an object is. */}}
{{- define "llamacluster.labels" -}}
{{- $ours := include "llamacluster.ownLabels" . | fromYaml -}}
{{ toYaml (merge $ours .Values.commonLabels) }}
{{- end -}}

{{- define "llamacluster.ownLabels" -}}
{{ include "llamacluster.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "llamacluster.image" -}}
{{- $tag := .image.tag | default .appVersion -}}
{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end -}}

{{/* What the operator may do with the objects in a namespace; docs/security.md says why. */}}
{{- define "llamacluster.rules" -}}
- apiGroups: [llamacluster.dev]
  resources: [llamaclusters]
  verbs: [get, list, watch]
- apiGroups: [llamacluster.dev]
  resources: [llamaclusters/status]
  verbs: [patch]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# Never read: whoever reads Secrets of all namespaces owns the cluster.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
# Whether another node may mount the model of a leader whose node is lost.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}
