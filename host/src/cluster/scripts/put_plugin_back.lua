-- Puts what a node knows of a plugin back, after Redis has lost it, unless it is of another registry.
-- KEYS: plugins, their revision, the components that the record names. ARGV: the plugin's name, the record's revision, the
-- record, the channel of news, the id of the registry.
redis.call('HSETNX', KEYS[1], '', ARGV[5])
if redis.call('HGET', KEYS[1], '') ~= ARGV[5] then
  return 0
end
local record = redis.call('HGET', KEYS[1], ARGV[1])
local now = record and tonumber(string.match(record, '^%d+')) or 0
if now <= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
  for i = 3, #KEYS do
    redis.call('PERSIST', KEYS[i])
  end
end
if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('PUBLISH', ARGV[4], 'plugins')
end
return 1
